"""Two reports compared: the same queries are paired, other queries are said to be unpaired, the rest is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ionbed import cli
from ionbed.errors import InputError
from ionbed.evaluation.metrics import roc_auc
from ionbed.evaluation.report.comparison import _difference, _marks, _Side, _trainings, _with_spread, compare_reports
from ionbed.evaluation.report.comparison_words import (
    comparison_markdown,
    comparison_page,
    comparison_sentences,
    comparison_warnings,
    print_comparison,
    write_comparison,
)
from ionbed.evaluation.report.figures import pair_truth
from ionbed.evaluation.statistics import Measured


def differences(tree: dict[str, Any], question: str, label: str) -> dict[str, Any]:
    (row,) = (row for row in tree["questions"][question]["rows"] if row["second"] == label)
    return {found["metric"]: found for found in row["differences"]}


def renamed(made: Any, names: dict[str, str]) -> Any:
    """The same evaluation under other labels."""
    results = []
    for result in made.results:
        for row in result.rows:
            row.tree["label"] = names.get(row.tree["label"], row.tree["label"])
        rows = result.per_query["row"].to_pylist()
        column = [[names.get(label, label) for label in rows]]
        results.append(replace(result, per_query=result.per_query.set_column(0, "row", column)))
    return replace(made, results=results)


def test_a_report_is_no_better_than_its_like(evaluate_made_up, report_of) -> None:
    tree = compare_reports(*(report_of(evaluate_made_up(), name) for name in "ab"))
    assert [row["second"] for row in tree["questions"]["library search"]["rows"]] == [
        "small", "tiny", "fingerprint network",
    ]  # fmt: skip
    for question in tree["questions"].values():
        assert question["paired"]
        for row in question["rows"]:
            for found in row["differences"]:
                assert found["first"] == found["second"]
                assert (found["estimate"]["value"], found["estimate"]["low"]) == (0.0, 0.0)
                assert (found["p"], found["verdict"]) == (1.0, "unresolved")
    assert comparison_warnings(tree) == []
    assert comparison_sentences(tree) == [
        f"'{label}' has the same figures in both reports." for label in ("small", "tiny", "fingerprint network")
    ]


def test_the_better_of_two_beats_and_the_other_way_round_loses(evaluate_made_up, report_of) -> None:
    weak = report_of(evaluate_made_up(), "weak")
    made = evaluate_made_up(tiny=6.0)
    strong = report_of(made, "strong")
    for first, second, verdict, sign in ((weak, strong, "beats", 1), (strong, weak, "loses", -1)):
        tree = compare_reports(first, second)
        for question, metric in (("retrieval by mass", "hit@1"), ("library search", "hit@1")):
            found = differences(tree, question, "tiny")[metric]
            assert found["verdict"] == verdict
            assert found["test"] == "permutation"
            assert found["p"] <= found["p corrected"] <= 0.05
            assert sign * found["estimate"]["value"] > 0.2
            assert differences(tree, question, "small")[metric]["verdict"] == "unresolved"
        said = next(sentence for sentence in comparison_sentences(tree) if sentence.startswith("'tiny'"))
        words = {"beats": "beats 'tiny' of the first in", "loses": "loses to 'tiny' of the first in"}[verdict]
        assert words in said


def test_the_figures_are_those_of_the_reports(evaluate_made_up, report_of) -> None:
    made = evaluate_made_up(), evaluate_made_up(tiny=6.0)
    tree = compare_reports(report_of(made[0], "a"), report_of(made[1], "b"))
    for name, question in tree["questions"].items():
        for row in question["rows"]:
            for found in row["differences"]:
                for which, of in zip(("first", "second"), made, strict=True):
                    (own,) = (r for r in of.tree["tasks"][name]["rows"] if r["label"] == row[which])
                    expected = own["metrics"][found["metric"]]["micro"]
                    assert found[which]["value"] == pytest.approx(expected["value"])
                    assert found[which]["low"] == pytest.approx(expected["low"], abs=1e-6)


def test_pairs_are_compared_by_their_scores(evaluate_made_up, report_of) -> None:
    made = evaluate_made_up(), evaluate_made_up(tiny=6.0)
    found = differences(compare_reports(report_of(made[0], "a"), report_of(made[1], "b")), "same molecule", "tiny")
    areas = []
    for of in made:
        (result,) = (result for result in of.results if result.question.kind == "pairs")
        (row,) = (row for row in result.rows if row.tree["label"] == "tiny")
        areas.append(roc_auc(row.pair_scores, pair_truth(result.question.task)))
    assert found["ROC AUC"]["estimate"]["value"] == pytest.approx(areas[1] - areas[0])
    assert found["ROC AUC"]["estimate"]["low"] > 0
    assert found.keys() == {"ROC AUC", "average precision", "ROC AUC between laboratories"}


def test_what_guessing_solves_is_not_compared(evaluate_made_up, report_of) -> None:
    tree = compare_reports(*(report_of(evaluate_made_up(), name) for name in "ab"))
    assert differences(tree, "library search", "tiny").keys() == {"hit@1", "MRR", "Tanimoto@1"}


def test_other_queries_are_compared_unpaired_and_it_is_said(evaluate_made_up, report_of) -> None:
    made = evaluate_made_up(32, tiny=6.0)
    made.tree["inputs"]["split"]["hash"] = "2" * 64
    tree = compare_reports(report_of(evaluate_made_up(), "a"), report_of(made, "b"))
    for question in tree["questions"].values():
        assert not question["paired"]
        assert question["why not"] == "The splits differ."
        assert {found["test"] for row in question["rows"] for found in row["differences"]} == {"bootstrap, unpaired"}
    found = differences(tree, "retrieval by mass", "tiny")["hit@1"]
    assert found["estimate"]["low"] < found["estimate"]["value"] < found["estimate"]["high"]
    # Other queries of one row are a difference of draws alone; a paired interval of equal rows would have no width.
    same = differences(tree, "retrieval by mass", "small")["hit@1"]["estimate"]
    assert same["high"] - same["low"] > 0.1
    (splits, unpaired) = comparison_warnings(tree)
    assert splits == "The splits differ."
    assert "their differences are unpaired" in unpaired
    assert all("(unpaired)" in sentence for sentence in comparison_sentences(tree))


def test_models_under_other_names_are_compared_with_each_other(evaluate_made_up, report_of) -> None:
    names = {"small": "base", "tiny": "large"}
    tree = compare_reports(
        report_of(evaluate_made_up(), "a"), report_of(renamed(evaluate_made_up(tiny=6.0), names), "b")
    )
    rows = [(row["first"], row["second"]) for row in tree["questions"]["library search"]["rows"]]
    assert rows == [
        ("fingerprint network", "fingerprint network"),
        ("small", "base"), ("small", "large"), ("tiny", "base"), ("tiny", "large"),
    ]  # fmt: skip
    assert "small → large" in comparison_markdown(tree)


def test_look_ups_that_answer_otherwise_are_named(evaluate_made_up, report_of) -> None:
    tree = compare_reports(report_of(evaluate_made_up(), "a"), report_of(evaluate_made_up(cosine=6.0), "b"))
    assert tree["controls"]
    assert all(sentence.startswith("'cosine' has ") for sentence in tree["controls"])
    assert set(tree["controls"]) <= set(comparison_warnings(tree))


def test_a_void_row_has_no_verdict(evaluate_made_up, report_of) -> None:
    made = evaluate_made_up(tiny=6.0)
    for task in made.tree["tasks"].values():
        for row in task["rows"]:
            if row["label"] == "tiny":
                row["void"], row["exposure"] = "it knows the truth.", "no record"
    tree = compare_reports(report_of(evaluate_made_up(), "a"), report_of(made, "b"))
    assert "'tiny' of the second report cannot be judged." in comparison_sentences(tree)
    assert "'tiny' of the second report is void: it knows the truth." in comparison_warnings(tree)
    assert "'tiny' of the second report may have seen the queries: no record." in comparison_warnings(tree)
    lines = [line for line in comparison_markdown(tree).splitlines() if line.startswith("| tiny")]
    assert lines
    assert all(line.endswith("| void ‡ |") for line in lines)


@pytest.mark.parametrize(("metric", "verdict"), [("hit@1", "beats"), ("MCES@1", "loses")])
def test_where_lower_is_better_more_is_worse(metric: str, verdict: str) -> None:
    measured = [Measured(value, np.random.default_rng(0).normal(value, 0.01, 500), 50) for value in (0.2, 0.8)]
    found = _difference(metric, measured, 0.001, "permutation", {"confidence": 0.95})
    assert found["estimate"]["value"] == pytest.approx(0.6)
    assert found["verdict"] == verdict


def test_a_verdict_needs_a_corrected_p_value(evaluate_made_up, report_of) -> None:
    tree = compare_reports(report_of(evaluate_made_up(), "a"), report_of(evaluate_made_up(tiny=6.0), "b"))
    found = [of for question in tree["questions"].values() for row in question["rows"] for of in row["differences"]]
    assert all(of["p corrected"] >= of["p"] for of in found)
    taken_back = [of for of in found if (of["estimate"]["low"] or 0) > 0 and of["p corrected"] > 0.05]
    assert taken_back  # otherwise this test shows nothing
    assert {of["verdict"] for of in taken_back} == {"unresolved"}


def test_what_cannot_be_compared_is_refused(evaluate_made_up, report_of, tmp_path: Path) -> None:
    folder = report_of(evaluate_made_up(), "a")
    with pytest.raises(InputError, match="is compared with itself"):
        compare_reports(folder, tmp_path / "a")
    with pytest.raises(InputError, match="is no report"):
        compare_reports(folder, tmp_path)

    made = evaluate_made_up()
    made.tree["tasks"] = {"another question": made.tree["tasks"]["library search"]}
    with pytest.raises(InputError, match="have no question in common"):
        compare_reports(folder, report_of(replace(made, results=[]), "other question"))

    names = {row["label"]: f"{row['label']}!" for row in evaluate_made_up().tree["tasks"]["library search"]["rows"]}
    made = renamed(evaluate_made_up(), names)
    for task in made.tree["tasks"].values():
        task["rows"] = [row for row in task["rows"] if row["kind"] != "learned"]
    with pytest.raises(InputError, match="have no row in common"):
        compare_reports(folder, report_of(made, "other rows"))

    made = evaluate_made_up()
    made.tree["tasks"]["library search"]["kind"] = "open"
    with pytest.raises(InputError, match="'library search' is of two kinds"):
        compare_reports(folder, report_of(made, "other kind"))


def test_only_what_both_have_measured_is_paired(evaluate_made_up, report_of) -> None:
    """MCES@1 is measured on some of the queries, which need not be the same in both reports."""
    import pyarrow as pa

    folders = []
    for name, value, measured in (("a", 3.0, slice(0, 50)), ("b", 5.0, slice(20, 80))):
        made, results = evaluate_made_up(), []
        for result in made.results:
            table = result.per_query
            if result.question.name == "library search":
                result.tree["metrics"].append("MCES@1")
                column = np.full(80, np.nan)
                column[measured] = value
                num_rows = len(table) // 80
                table = table.append_column("MCES@1", pa.array(np.tile(column, num_rows), from_pandas=True))
            results.append(replace(result, per_query=table))
        folders.append(report_of(replace(made, results=results), name))
    found = differences(compare_reports(*folders), "library search", "small")["MCES@1"]
    assert (found["first"]["value"], found["second"]["value"], found["estimate"]["value"]) == (3.0, 5.0, 2.0)
    assert (found["estimate"]["low"], found["estimate"]["high"]) == (2.0, 2.0)


def test_files_that_lost_a_row_are_refused(evaluate_made_up, report_of) -> None:
    made = renamed(evaluate_made_up(), {})
    cut = [replace(result, per_query=result.per_query.slice(0, 80)) for result in made.results]
    with pytest.raises(InputError, match="have no row 'small'"):
        compare_reports(report_of(evaluate_made_up(), "a"), report_of(replace(made, results=cut), "cut"))


def test_without_models_look_ups_are_compared(evaluate_made_up, report_of) -> None:
    folders = []
    for name, strengths in (("a", {}), ("b", {"cosine": 6.0})):
        made = evaluate_made_up(**strengths)
        for task in made.tree["tasks"].values():
            task["rows"] = [row for row in task["rows"] if row["kind"] in ("reference", "blind", "look-up")]
        folders.append(report_of(made, name))
    tree = compare_reports(*folders)
    rows = tree["questions"]["retrieval by mass"]["rows"]
    assert [row["second"] for row in rows] == ["cosine", "spectral entropy"]
    assert differences(tree, "retrieval by mass", "cosine")["hit@1"]["verdict"] == "beats"


def test_the_command_prints_and_writes_one_thing(evaluate_made_up, report_of, tmp_path: Path, capsys) -> None:
    first, second = report_of(evaluate_made_up(), "a"), report_of(evaluate_made_up(tiny=6.0), "b")
    out = tmp_path / "compared"
    assert cli.main(["evaluate", "compare", str(first), str(second), "--out", str(out)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    tree = json.loads((out / "comparison.json").read_text())
    assert tree == compare_reports(first, second)
    assert json.loads((out / "manifest.json").read_text())["command"] == "evaluate compare"
    page = (out / "comparison.html").read_text()
    for sentence in comparison_sentences(tree):
        assert sentence in text
        assert sentence in (out / "comparison.md").read_text()
        assert sentence.replace("'", "&#x27;") in page
    assert comparison_page(tree) == page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs two folders"),
        (("a",), "needs two folders"),
        (("a", "b", "--split", "s.json"), "takes two reports, and no --split or --set"),
        (("a", "b"), "is no report"),
    ],
)
def test_wrong_words_are_one_line(words: tuple[str, ...], message: str, capsys) -> None:
    assert cli.main(["evaluate", "compare", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_evaluate_without_compare_still_wants_an_out(capsys) -> None:
    assert cli.main(["evaluate", "model", "store"]) == 2
    assert "--out is missing" in capsys.readouterr().err
    assert cli.main(["evaluate", "model", "store", "third", "--out", "x"]) == 2
    assert "one folder too many" in capsys.readouterr().err


def test_a_terminal_gets_the_main_metrics(evaluate_made_up, report_of, tmp_path: Path) -> None:
    tree = compare_reports(report_of(evaluate_made_up(), "a"), report_of(evaluate_made_up(tiny=6.0), "b"))
    written = io.StringIO()
    print_comparison(tree, Console(file=written, width=100))
    assert "Library search: the molecule is in the library: hit@1" in written.getvalue()
    with pytest.raises(InputError, match="exists"):
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "file").touch()
        write_comparison(tree, tmp_path / "taken")


def test_several_trainings_are_said_to_be_their_mean_and_of_pairs_the_first() -> None:
    row = {"void": None, "exposure": None, "trainings": 3}
    (ranked,), (of_pairs,) = _marks(row, is_pairs=False), _marks(row, is_pairs=True)
    assert ranked.startswith("is the mean of 3 trainings")
    assert of_pairs.startswith("is the first of 3 trainings")
    assert not _marks({**row, "trainings": 1}, is_pairs=False)


@pytest.mark.parametrize("is_pairs", [False, True])
def test_a_difference_within_the_spread_of_the_trainings_is_no_verdict(is_pairs: bool) -> None:
    rng = np.random.default_rng(0)
    measured = [Measured(value, rng.normal(value, 0.005, 1000), 200) for value in (0.50, 0.55)]

    def judged(spread: dict[str, float], trainings: int) -> dict[str, Any]:
        row = {"trainings": trainings, "spread": {"hit@1": spread}}
        none = np.empty(0, object)
        sides = [_Side({}, none, None, {}, _trainings(row, is_pairs=is_pairs)), _Side({}, none, None, {})]
        return _difference(
            "hit@1", *_with_spread("hit@1", sides, measured, 0.0001, "permutation"), {"confidence": 0.95}
        )

    alone = judged({"least": 0.5, "most": 0.5}, 1)
    assert (alone["verdict"], alone["p"], alone["test"]) == ("beats", 0.0001, "permutation")
    close = judged({"least": 0.499, "most": 0.501}, 3)
    assert close["verdict"] == "beats" and close["p"] < 0.001
    far = judged({"least": 0.45, "most": 0.55}, 3)
    assert far["verdict"] == "unresolved" and far["p"] > 0.05
    assert far["test"] == "permutation, spread of trainings"
    assert far["estimate"]["value"] == pytest.approx(0.05)
    assert far["first"]["value"] == 0.50
    assert far["second"] == alone["second"]


def test_the_spread_is_the_largest_that_least_and_most_allow() -> None:
    row = {"trainings": 3, "spread": {"hit@1": {"least": 0.3, "most": 0.6}}}
    ranked, of_pairs = (_trainings(row, is_pairs=is_pairs)["hit@1"] for is_pairs in (False, True))
    assert np.ptp(ranked) == pytest.approx(0.3)
    assert ranked.mean() == pytest.approx(0)
    assert of_pairs == pytest.approx(ranked * 3**0.5)  # one training strays further than the mean of three
