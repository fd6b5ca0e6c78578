"""The report of an evaluation: whole, self-contained, and honest on top."""

from __future__ import annotations

import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ionbed.errors import InputError
from ionbed.evaluation.baselines import blind, networks, predicted_spectra, structures
from ionbed.evaluation.baselines.lookup_record import Agreement, LookupRecord
from ionbed.evaluation.baselines.transfer import transfer_label
from ionbed.evaluation.comparisons import KIND_OF
from ionbed.evaluation.fused import fused_label, lookups_label
from ionbed.evaluation.report import explanations
from ionbed.evaluation.report.page import html_page
from ionbed.evaluation.report.results import file_name, load_results, read_outcomes
from ionbed.evaluation.report.table import exact_sentence, markdown, print_tables, tables, verdict_table
from ionbed.evaluation.report.verdicts import (
    audit_sentence,
    exposure_sentences,
    verdict_sentences,
    void_sentences,
)
from ionbed.evaluation.report.write import drawings
from ionbed.evaluation.scorers import Chance, NearestNeighbourOracle, PrecursorOnly
from ionbed.spectra import lookups

FAILED = {
    "audit": "spectrum swapped",
    "about": "small",
    "passed": False,
    "sentence": "The score did not fall when the peaks were those of another molecule.",
    "evidence": {},
}


def printed(tree: dict[str, Any]) -> str:
    written = io.StringIO()
    print_tables(tree, Console(file=written, width=120))
    return written.getvalue()


def verdict_tree(**of_question: str) -> dict[str, Any]:
    """A tree in which 'x' has one verdict against the best look-up in each question; None where it was not judged."""
    tasks = {}
    for name, verdict in of_question.items():
        found = {"metric": "hit@1", "role": "best look-up", "against": "cosine", "verdict": verdict}
        row = {"label": "x", "kind": "learned", "void": None, "exposure": None}
        tasks[name.replace("_", " ")] = {"main": "hit@1", "rows": [{**row, "differences": [found] if verdict else []}]}
    return {"inputs": {}, "audits": [], "tasks": tasks}


def test_the_folder_is_whole_and_needs_nothing_from_outside(evaluate_made_up, report_page) -> None:
    made, folder = evaluate_made_up(), report_page
    assert load_results(folder) == json.loads(json.dumps(made.tree))
    for result in made.results:
        name = result.question.name
        table = read_outcomes(folder, name)
        lines = len(result.question.found.candidate) if result.question.kind == "pairs" else len(result.rows) * 80
        assert len(table) == lines
    page = (folder / "report.html").read_text()
    # What is named on the network are XML namespaces and the DTD, which no browser loads.
    assert not re.search(r"(src|href)=.(http|//)|url\(.?http|@import|<script", page)
    assert set(re.findall(r"https?://[^/'\"]+", page)) <= {"http://www.w3.org", "http://www.rdkit.org"}
    for drawing in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")
    links = set(re.findall(r"href='#([^']+)'", page))
    assert links == set(re.findall(r"<h2 id='([^']+)'", page))
    first = html.escape(verdict_sentences(made.tree)[0])
    assert page.index("<h1>") < page.index(first) < page.index("<table>")


def test_each_question_has_its_figures(evaluate_made_up, report_page) -> None:
    made = evaluate_made_up()
    page = (report_page / "report.html").read_text()
    parts = dict(zip(made.tree["tasks"], page.split("<h2 id=")[1:], strict=False))
    for caption, kinds in (
        ("ROC curves", {"pairs"}),
        ("hit@k:", {"library", "open", "retrieval"}),
        ("Risk against coverage", {"library", "open", "retrieval"}),
        ("False discovery rate as", {"library", "open", "retrieval"}),
        ("Each row's figure with its interval", set(KIND_OF.values())),
        ("Confident and wrong, 1", {"library", "open", "retrieval"}),
    ):
        for name, part in parts.items():
            kind = made.tree["tasks"][name]["kind"]
            assert (f"<figcaption>{html.escape(caption)}" in part) == (kind in kinds), (caption, name)


def test_one_number_stands_in_every_form(evaluate_made_up) -> None:
    made = evaluate_made_up()
    task = made.tree["tasks"]["library search"]
    (small,) = (row for row in task["rows"] if row["label"] == "small")
    micro = small["metrics"]["hit@1"]["micro"]
    shown = f"{micro['value']:.3f} [{micro['low']:.3f}, {micro['high']:.3f}]"
    page = re.sub("<[^>]+>", "", html_page(made.tree, []))
    assert shown in page
    assert shown in markdown(made.tree)
    assert shown in printed(made.tree)
    for sentence in verdict_sentences(made.tree):
        assert sentence in html.unescape(page)
        assert sentence in markdown(made.tree)
        assert sentence in " ".join(printed(made.tree).split())


def test_the_page_is_the_same_each_time(evaluate_made_up, report_page) -> None:
    made = evaluate_made_up()
    one = [result for result in made.results if result.question.kind == "library"]
    drawn = drawings(made.tree, one, made.data, made.molecules, loss_logs={}, seed=0)
    page = (report_page / "report.html").read_text()
    for panel in (panel for drawing in drawn for panel in drawing.panels):
        assert panel[len("<svg") :] in page


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ({"a": "beats", "b": "beats"}, "'x' beats the best look-up in all 2 questions."),
        ({"a": "beats"}, "'x' beats the best look-up in a."),
        (
            {"a": "beats", "b": "loses", "c": "beats", "d": "unresolved"},
            "'x' beats the best look-up in a and c; loses to the best look-up in b; cannot be told from the best "
            "look-up in d.",
        ),
        ({"a": None}, "'x': nothing could be judged."),
    ],
)
def test_the_verdict_in_words(verdicts: dict[str, str], sentence: str) -> None:
    assert verdict_sentences(verdict_tree(**verdicts)) == [sentence]


def test_the_verdict_is_that_of_the_main_metric() -> None:
    tree = verdict_tree(a="loses")
    (row,) = tree["tasks"]["a"]["rows"]
    row["differences"].append({"metric": "MRR", "role": "best look-up", "against": "cosine", "verdict": "beats"})
    assert verdict_sentences(tree) == ["'x' loses to the best look-up in a."]


def test_look_ups_without_the_model_have_a_verdict_and_a_column_of_their_own(evaluate_made_up) -> None:
    made = evaluate_made_up()
    assert "against the same without the model" not in verdict_table(made.tree).header
    (row,) = (row for row in made.tree["tasks"]["library search"]["rows"] if row["label"] == "small")
    same = {"role": "without the model", "against": "cosine", "verdict": "loses"}
    row["differences"].append({**row["differences"][0], "metric": "hit@1", **same})
    table = verdict_table(made.tree)
    place = table.header.index("against the same without the model")
    said = {cells[:2]: cells[place] for cells in table.rows}
    assert said.pop(("library search", "small")).startswith("loses: cosine ")
    assert set(said.values()) == {"-"}
    assert "'small' loses to the same look-ups without it in library search." in verdict_sentences(made.tree)
    (row,) = (row for row in made.tree["tasks"]["analogue search"]["rows"] if row["label"] == "small")
    row["differences"].append({**row["differences"][0], "metric": "Tanimoto@1", **same})
    said_of = [sentence for sentence in verdict_sentences(made.tree) if "without it" in sentence]
    assert said_of == ["'small' loses to the same look-ups without it in library search and analogue search."]


def test_what_a_model_answers_by_transfer_is_its_own() -> None:
    tree = verdict_tree(a="beats", b="beats", c="loses")
    for name in "bc":
        tree["tasks"][name]["rows"][0] |= {"label": transfer_label("x"), "exposure": "no record"}
    (sentence,) = verdict_sentences(tree)
    assert sentence == (
        "'x' beats the best look-up in a and b (by analogue transfer); loses to the best look-up in c (by analogue "
        "transfer)."
    )
    (warning,) = exposure_sentences(tree)
    assert warning.startswith("'x' may have seen")
    # Of a baseline's transfer nothing is said: no model is behind it.
    for task in tree["tasks"].values():
        task["rows"][0]["kind"] = "look-up"
    assert verdict_sentences(tree) == ["No model was evaluated: these are the figures of the baselines alone."]


def test_a_failed_audit_comes_first_and_takes_the_verdict_away(evaluate_made_up) -> None:
    made = evaluate_made_up()
    made.tree["audits"].append(FAILED)
    for task in made.tree["tasks"].values():
        for row in task["rows"]:
            row["void"] = "its score survives other peaks" if row["label"] == "small" else None
    (said,) = void_sentences(made.tree)
    assert said.startswith("The figures of 'small' in same molecule, library search")
    assert said.endswith("do not count: its score survives other peaks.")
    assert not any("'small' beats" in sentence for sentence in verdict_sentences(made.tree))
    for row in verdict_table(made.tree).rows:
        assert (row[1] == "small ‡") == all(cell == "void ‡" for cell in row[3:])
    for task in made.tree["tasks"].values():
        (differences,) = (table for table in tables(task) if table.title == "Differences")
        assert {row[-1] for row in differences.rows if row[0] == "small ‡"} == {"void ‡"}
        assert "void ‡" not in {row[-1] for row in differences.rows if row[0] != "small ‡"}
    page = html.unescape(html_page(made.tree, []))
    assert page.index(FAILED["sentence"]) < page.index(verdict_sentences(made.tree)[0])
    for text in (page, markdown(made.tree), printed(made.tree)):
        flat = " ".join(text.split())
        assert FAILED["sentence"] in flat
        assert said in flat
        assert "small ‡" in flat
    lines = printed(made.tree).splitlines()
    assert lines[0].startswith("AUDIT FAILED: spectrum swapped (small)")


def test_a_row_that_may_have_seen_the_queries_is_marked_wherever_it_stands(evaluate_made_up) -> None:
    made = evaluate_made_up()
    assert "†" not in html_page(made.tree, [])
    for task in made.tree["tasks"].values():
        for row in task["rows"]:
            row["exposure"] = "no record" if row["label"] == "tiny" else None
    (warning,) = exposure_sentences(made.tree)
    for text in (html.unescape(html_page(made.tree, [])), markdown(made.tree), printed(made.tree)):
        assert warning in " ".join(text.split())
        assert "tiny †" in text
        assert "small †" not in text


def test_how_many_audits_passed_is_said(evaluate_made_up) -> None:
    tree = evaluate_made_up().tree
    assert audit_sentence(tree) == "1 of 2 audits passed, 1 could not be run."
    tree["audits"].append(FAILED)
    assert audit_sentence(tree) == "1 of 3 audits passed, 1 failed, 1 could not be run."
    page = html_page(tree, [])
    assert page.index("<h3>Failed</h3>") < page.index("Could not be run (1)") < page.index("Passed (1)")
    for finding in tree["audits"]:
        assert html.escape(finding["sentence"]) in page[page.index("<h2 id='audits'>") :]
    assert audit_sentence({"audits": []}) == "No audit was run: nothing is known of leaks."


def test_everything_is_explained(evaluate_made_up) -> None:
    tree = evaluate_made_up().tree
    assert explanations.ROWS.keys() == {
        Chance.label, PrecursorOnly.label, NearestNeighbourOracle.label, *lookups.LABELS, *networks.LABELS.values(),
        structures.PRECURSOR_ERROR, structures.GIVEN_FORMULA, structures.DATABASE_ORDER,
            predicted_spectra.PREDICTED_SPECTRA,
        blind.SMILES_CLASSIFIER, blind.MOST_MEASURED,
    }  # fmt: skip
    row = {"label": transfer_label("cosine"), "kind": "look-up"}
    assert "'cosine' finds nearest" in explanations.explained_row(row)
    for row in ({"label": fused_label("mine"), "kind": "learned"}, {"label": lookups_label("mine"), "kind": "trained"}):
        assert "'mine'" in explanations.explained_row(row) and "collision energies" in explanations.explained_row(row)
    assert explanations.explained_row({"label": "mine", "kind": "learned"}) == explanations.KIND_WORDS["learned"]
    assert explanations.TITLES.keys() == explanations.QUESTIONS.keys() == KIND_OF.keys()
    for task in tree["tasks"].values():
        assert set(task["metrics"]) <= explanations.METRICS.keys()
        assert {row["label"] for row in task["rows"] if row["kind"] != "learned"} <= explanations.ROWS.keys()
        assert {row["kind"] for row in task["rows"]} <= explanations.KIND_TITLES.keys()


def test_rows_stand_by_kind_and_void_nothing_of_their_order(evaluate_made_up) -> None:
    task = evaluate_made_up().tree["tasks"]["library search"]
    task["rows"] = task["rows"][::-1]
    table = tables(task)[0]
    assert table.groups == ("reference", "blind", "blind", "look-up", "look-up", "trained", "learned", "learned")
    assert [row[0] for row in table.rows][-2:] == ["tiny", "small"]


def test_every_difference_and_every_silent_query_is_in_a_table(evaluate_made_up) -> None:
    task = evaluate_made_up().tree["tasks"]["library search"]
    by_title = {table.title: table for table in tables(task)}
    wanted = sum(len(row["differences"]) for row in task["rows"])
    assert len(by_title["Differences"].rows) == wanted > 0
    assert by_title["Queries without any score, each a miss"].rows == (("tiny", "8", "80"),)
    assert len(by_title["Thresholds for a false discovery rate"].rows) == 3 * len(task["rows"])


def test_a_question_without_rows_says_so(evaluate_made_up) -> None:
    tree = evaluate_made_up().tree
    tree["tasks"]["library search"] |= {"rows": [], "counts": {"queries": 0}}
    for text in (html_page(tree, []), markdown(tree), printed(tree)):
        assert "Nothing to measure: queries: 0" in text


def test_a_question_that_could_not_be_asked_is_named(evaluate_made_up) -> None:
    tree = evaluate_made_up().tree
    tree["inputs"]["tasks without a query"] = ["retrieval by mass", "same molecule, any partner"]
    said = "Not asked, since the data hold no query for it: retrieval by mass and same molecule with any partner."
    for text in (html_page(tree, []), markdown(tree), printed(tree)):
        assert said in " ".join(text.split())


def test_how_exact_the_distances_are_is_said(evaluate_made_up) -> None:
    tree = evaluate_made_up().tree
    task = tree["tasks"]["library search"]
    assert exact_sentence(task) is None
    for row, share in zip(task["rows"], (0.9, *[1.0] * len(task["rows"])), strict=False):
        row["metrics"]["MCES@1"] = {**row["metrics"]["hit@1"], "exact": share, "queries": 50}
    said = "MCES@1 is measured on 50 queries; 90.0% to 100.0%, by row, of the distances are exact."
    assert exact_sentence(task) == said
    assert said in html_page(tree, [])
    assert said in markdown(tree)


def test_what_the_look_ups_do_is_on_the_page(evaluate_made_up) -> None:
    made = evaluate_made_up()
    agreement = Agreement("matchms 1.2.3 CosineGreedy", pairs=200, apart=0, largest_difference=1e-7)
    record = LookupRecord(
        ("peaks within 2 Da are merged", "noise is dropped"), {"cosine": "CosineGreedy"}, {}, {"matchms": "1.2.3"},
        {"cosine": agreement},
    )  # fmt: skip
    made.tree["inputs"]["look-ups"] = asdict(record)
    page = html.unescape(html_page(made.tree, []))
    for text in (*record.steps, *record.scores.values(), agreement.against, "1e-07", "matchms 1.2.3"):
        assert text in page
    assert page.index(record.steps[0]) < page.index(record.steps[1])


def test_tables_fit_a_terminal_of_80_columns(evaluate_made_up) -> None:
    written = io.StringIO()
    print_tables(evaluate_made_up().tree, Console(file=written, width=80))
    assert "…" not in written.getvalue()
    lines = [line for line in written.getvalue().splitlines() if line.startswith("small") and line.count(".") == 7]
    assert len(lines) == 3  # library search, open-world search, retrieval: no interval is broken over two lines
    assert all(line.count("[") == line.count("]") == 1 for line in lines)


def test_names_cannot_break_out_of_page_or_table(evaluate_made_up) -> None:
    tree = evaluate_made_up().tree
    for task in tree["tasks"].values():
        task["rows"][-2]["label"] = "<b>a|b</b> [red]"
    assert "<b>a" not in html_page(tree, [])
    assert "<b>a\\|b</b> [red]" in markdown(tree)
    assert "<b>a|b</b> [red]" in printed(tree)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no report"),
        ("{", "cannot be read"),
        ("[]", "holds no evaluation"),
        ('{"tasks": {}}', "is of format 1, this version reads 2; run the evaluation again"),
        ('{"format": 3, "tasks": {}}', "is of format 3, this version reads 2; update ionbed"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_results(tmp_path)


def test_a_missing_or_broken_file_of_outcomes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"library-search\.parquet: is missing"):
        read_outcomes(tmp_path, "library search")
    (tmp_path / "library-search.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_outcomes(tmp_path, "library search")


def test_pairs_are_written_once_with_a_column_of_scores_for_each_row(evaluate_made_up, report_of) -> None:
    made = evaluate_made_up()
    table = pq.read_table(report_of(made, "report") / f"{file_name('same molecule')}.parquet")
    (result,) = (result for result in made.results if result.question.name == "same molecule")
    same = table["query_molecule"].to_numpy() == table["candidate_molecule"].to_numpy()
    assert np.array_equal(table["same_molecule"].to_numpy(), same)
    assert 0 < same.sum() < len(same)
    for row in result.rows:
        scores = table[f"score: {row.tree['label']}"].cast("float64").fill_null(-np.inf).to_numpy()
        assert np.array_equal(scores, row.pair_scores)


def test_the_made_up_evaluation_is_what_the_tests_take_it_for(evaluate_made_up: Callable[..., Any]) -> None:
    rows = {row["label"]: row for row in evaluate_made_up().tree["tasks"]["library search"]["rows"]}
    figures = {label: row["metrics"]["hit@1"]["micro"]["value"] for label, row in rows.items()}
    assert figures["small"] > figures["spectral entropy"] > figures["random"]
