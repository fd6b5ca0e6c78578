"""The figures of the report show the numbers of its tables, and the failures that are truly failures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ionbed.errors import InputError
from ionbed.evaluation.metrics import roc_auc, roc_curve
from ionbed.evaluation.report.confidence_figures import calibration
from ionbed.evaluation.report.drawing import Drawing, row_styles
from ionbed.evaluation.report.figures import _thinned, hit_curve, pair_truth, shown_rows
from ionbed.evaluation.report.markup import html_figure
from ionbed.evaluation.report.mirror import matched_peaks, mirror_figure, save_mirror, spectrum_figure
from ionbed.evaluation.report.searches import confident_failures, failure_drawings, random_search, row_to_show
from ionbed.evaluation.report.structures import structure_svg
from ionbed.evaluation.report.training_log import loss_curves, read_losses
from ionbed.evaluation.statistics import molecule_weights


def result_of(made: Any, question: str) -> Any:
    (found,) = (result for result in made.results if result.question.name == question)
    return found


def row_of(result: Any, label: str) -> Any:
    (found,) = (row for row in result.rows if row.tree["label"] == label)
    return found


@pytest.mark.parametrize("question", ["library search", "open-world search", "retrieval by mass"])
def test_the_curve_of_hits_goes_through_the_table(evaluate_made_up, question: str) -> None:
    result = result_of(evaluate_made_up(), question)
    for row in result.rows:
        counted = row.outcomes.counted["hit@1"]
        molecule = np.unique(result.question.task.query_molecule[counted], return_inverse=True)[1]
        weights = molecule_weights(int(molecule.max()) + 1, resamples=200, seed=0)
        curve = hit_curve(row.outcomes, counted, molecule, weights, (1, 5), 0.95)
        for k, found in zip((1, 5), curve, strict=True):
            micro = row.tree["metrics"][f"hit@{k}"]["micro"]
            assert found.value == pytest.approx(micro["value"])
            assert (found.low, found.high) == pytest.approx((micro["low"], micro["high"]), abs=1e-6)


def test_figures_of_lines_show_the_models_and_the_best_of_the_others(evaluate_made_up) -> None:
    result = result_of(evaluate_made_up(), "library search")
    shown = [row.tree["label"] for row in shown_rows(result)]
    blind = [row for row in result.rows if row.tree["kind"] == "blind"]
    best = max(blind, key=lambda row: row.tree["metrics"]["hit@1"]["micro"]["value"])
    assert [label for label in shown if label in {row.tree["label"] for row in blind}] == [best.tree["label"]]
    assert {"random", "cosine", "spectral entropy", "fingerprint network", "small", "tiny"} <= set(shown)


def test_a_row_has_one_colour_in_every_figure(evaluate_made_up) -> None:
    rows = evaluate_made_up().tree["tasks"]["library search"]["rows"]
    styles = row_styles(rows)
    assert len(set(styles.values())) == len(rows)
    assert row_styles(rows) == styles


def test_a_thinned_roc_curve_keeps_its_ends_and_its_area() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(20_000) < 0.02
    scores = rng.normal(size=20_000) + positive
    false, true = _thinned(*roc_curve(scores, positive))
    assert len(false) < 500
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(roc_auc(scores, positive), abs=0.005)


def test_pairs_are_of_one_molecule_where_the_data_say_so(evaluate_made_up) -> None:
    made = evaluate_made_up()
    result = result_of(made, "same molecule")
    found = result.question.found
    expected = made.data.molecule[found.queries[found.pool]] == made.data.molecule[found.candidate]
    assert np.array_equal(pair_truth(result.question.task), expected)


@pytest.mark.parametrize("question", ["library search", "open-world search", "retrieval by mass"])
def test_failures_are_wrong_and_the_most_confident_comes_first(evaluate_made_up, question: str) -> None:
    made = evaluate_made_up()
    result = result_of(made, question)
    row = row_to_show(result)
    assert row.tree["label"] == "small"
    found = confident_failures(result, row, made.data, made.molecules)
    assert 0 < len(found) <= 3
    assert len({search.true_molecule for search in found}) == len(found)
    scores = [search.score for search in found]
    wrong = row.outcomes.best[(row.outcomes.correct == 0) & (row.best >= 0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == wrong.max()
    for search in found:
        assert search.true_molecule == made.data.molecule[search.query]
        assert search.hit_molecule != search.true_molecule
        assert 0 <= search.tanimoto <= 1
        assert (search.hit is None) == (question == "retrieval by mass")
        if search.hit is not None:
            assert made.data.molecule[search.hit] == search.hit_molecule


def test_who_is_never_wrong_has_no_failures(evaluate_made_up) -> None:
    made = evaluate_made_up(small=100.0)
    assert failure_drawings(result_of(made, "library search"), made.data, made.molecules) == []
    (_, *rest) = failure_drawings(result_of(made, "open-world search"), made.data, made.molecules)
    for drawing in rest:  # half of the queries have no answer: there even the best is wrong
        assert "The query's molecule was not among the candidates." in drawing.caption


def test_without_models_the_best_look_up_is_shown(evaluate_made_up) -> None:
    from dataclasses import replace

    result = result_of(evaluate_made_up(), "library search")
    lookups = replace(result, rows=tuple(row for row in result.rows if row.tree["kind"] != "learned"))
    best = row_to_show(lookups)
    figures = {row.tree["label"]: row.tree["metrics"]["hit@1"]["micro"]["value"] for row in lookups.rows}
    assert figures[best.tree["label"]] == max(figures["cosine"], figures["spectral entropy"])
    assert row_to_show(replace(result, rows=())) is None


def test_the_random_search_is_drawn_by_its_seed_and_shows_both_spectra_and_structures(evaluate_made_up) -> None:
    made = evaluate_made_up()
    drawings = [random_search(made.results, made.data, made.molecules, seed=seed) for seed in (0, 0, 1, 2)]
    assert drawings[0] == drawings[1]
    assert len({drawing.caption + drawing.panels[0] for drawing in drawings}) > 1
    for drawing in drawings:
        assert len(drawing.panels) == (2 if "the same molecule" in drawing.caption else 3)


def test_calibration_is_drawn_where_scores_are_probabilities(evaluate_made_up) -> None:
    result = result_of(evaluate_made_up(), "library search")
    shown = shown_rows(result)
    assert calibration(result, shown) is None
    row_of(result, "small").tree["confidence"]["calibration"] = {
        "error": 0.123, "confidence": [0.2, 0.8], "accuracy": [0.1, 0.9], "answers": [40, 40],
    }  # fmt: skip
    drawing = calibration(result, shown)
    assert [meaning for _, _, meaning in drawing.key] == ["small (error 0.123)"]


def test_structures_are_drawn_or_left_out() -> None:
    drawn = structure_svg("CCO", "the query's molecule")
    ElementTree.fromstring(drawn)
    assert structure_svg("no molecule", "x") is None


def test_a_figure_says_to_a_screen_reader_what_it_is() -> None:
    drawing = Drawing("A 'caption' <b>", ("<svg width='1'></svg>",), (("#000000", "--", "a & b"),))
    text = html_figure(drawing)
    assert "aria-label='A &#x27;caption&#x27; &lt;b&gt;'" in text
    assert "a &amp; b" in text
    ElementTree.fromstring(text)


def test_mirror_plots_are_written_by_their_ending(build: SimpleNamespace, tmp_path: Path) -> None:
    upper = build.spectrum(0, 0)
    lower = build.spectrum(1, 0, mz=(100.01, 160.0), intensity=(1.0, 0.2))
    assert [m.tolist() for m in matched_peaks(upper.mz, lower.mz, 0.02)] == [[True, False, False], [True, False]]
    assert save_mirror(upper, lower, tmp_path / "m.png").read_bytes()[:4] == b"\x89PNG"
    ElementTree.parse(save_mirror(upper, lower, tmp_path / "m.svg"))
    assert len(spectrum_figure(upper).axes[0].collections) > 0


def test_two_spectra_of_one_peak_are_shown_on_a_scale_of_masses(build: SimpleNamespace) -> None:
    spectra = [build.spectrum(m, 0, precursor_mz=255.0652, mz=(255.0653 + m / 5000,), intensity=(1.0,)) for m in (0, 1)]
    (axes,) = mirror_figure(*spectra).axes
    least, most = axes.get_xlim()
    assert most - least == pytest.approx(20) and least < 255 < most


def test_losses_are_read_and_drawn(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "lr": 0.1}, {"step": 2, "validation_loss": 1.5}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_losses(log) == {"loss": ([1, 2], [2.0, 1.0]), "validation_loss": ([2], [1.5])}
    assert len(loss_curves({"a": log, "b": log}).panels) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("not json\n", "line 1 is not a JSON object"), ("[1]\n", "line 1 is not"), ('{"step": 1}\n', "no line has both")],
)
def test_a_log_that_is_no_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(text)
    with pytest.raises(InputError, match=message):
        read_losses(log)
