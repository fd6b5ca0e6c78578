"""Probabilities from building an index to the table of hits: fitted at the build, shown by a search, fitted anew."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from ionbed import InputError, load_model
from ionbed.cli import app
from ionbed.embeddings import kinds
from ionbed.embeddings.annotation import LEVEL_2A, LEVEL_3_AT_BEST, LEVEL_3_FLATTERED
from ionbed.embeddings.calibration import TERMS, Calibration
from ionbed.embeddings.index import Index
from ionbed.embeddings.index_report import calibration_told, scores_told
from ionbed.embeddings.search import find
from ionbed.embeddings.search_options import SearchOptions
from ionbed.spectra.writers import write_mgf, write_msp

from .conftest import CountSketchModel
from .test_calibration import made_library


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("calibrated")
    write_mgf(made_library()[::8], place / "queries.mgf")
    write_msp(made_library(), place / "library.msp")
    kinds.build(place / "library.msp", place / "index", CountSketchModel())
    return place


def test_an_index_is_calibrated_when_it_is_built_and_a_search_tells_probabilities(folder):
    index = Index.open(folder / "index", CountSketchModel())
    calibration = Calibration.from_tree(index.manifest["calibration"])
    assert calibration.record["from"] == "library" and calibration.record["library_spectra"] == 520
    for options in ({}, {"precursor_ppm": None}):
        rows = list(find(index, folder / "queries.mgf", SearchOptions(k=3, **options)))
        assert len(rows) == 65 * 3 and all(0 <= row.probability <= 1 for row in rows)
        by_molecule = {}
        for row in rows:
            by_molecule.setdefault((row.query_id, row.inchikey), set()).add(row.probability)
        assert all(len(values) == 1 for values in by_molecule.values())
        # Fewer hits shown are no less probable: the next molecule is looked for all the same.
        first = list(find(index, folder / "queries.mgf", SearchOptions(k=1, **options)))
        assert [row.probability for row in first] == [row.probability for row in rows if row.rank == 1]
        assert sum(row.probability for row in first) / len(first) > 0.6


def test_a_probability_that_flatters_gives_no_level_2a(folder):
    index = Index.open(folder / "index", CountSketchModel())
    tree = json.loads(json.dumps(index.manifest["calibration"]))
    for curve in tree["curves"].values():
        curve["weights"][TERMS.index("lead")] += 100.0  # the first hits are very likely, the others not
        curve["weights"][TERMS.index("arrears")] += 100.0
    levels = {}
    for laboratories in ("other", "own", "any"):
        for curve in tree["curves"].values():
            curve["record"]["laboratories"] = laboratories
        index.manifest["calibration"] = tree
        levels[laboratories] = Counter(
            row.confidence for row in find(index, folder / "queries.mgf", SearchOptions(k=1))
        )
    assert levels["other"] == levels["own"] and LEVEL_2A not in levels["any"]
    assert levels["other"][LEVEL_2A] == levels["any"][LEVEL_3_FLATTERED] > 30


def test_a_library_without_probabilities_is_told_of_when_it_is_built(tmp_path, caplog):
    write_msp(made_library(4), tmp_path / "few.msp")
    caplog.set_level("INFO", logger="ionbed")
    index = kinds.build(tmp_path / "few.msp", tmp_path / "index", CountSketchModel())
    assert "no probability: too few molecules" in caplog.text
    write_mgf(made_library(4)[:1], tmp_path / "queries.mgf")
    [row] = find(index, tmp_path / "queries.mgf", SearchOptions(k=1))
    assert row.probability is None and row.confidence == LEVEL_3_AT_BEST


def test_calibrating_anew_by_ones_own_queries_replaces_it(folder, tmp_path):
    kinds.build(folder / "library.msp", tmp_path / "index", CountSketchModel())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "index_of_spectra", lambda path: Index.open(path, CountSketchModel()))
        calibration = kinds.calibrate(tmp_path / "index", folder / "queries.mgf")
        assert calibration.record["from"] == "queries.mgf"
        assert Calibration.from_tree(Index.open(tmp_path / "index").manifest["calibration"]) == calibration
        assert kinds.calibrate(tmp_path / "index").record["from"] == "library"
        with pytest.raises(InputError, match=r"split\.json: a split says which molecules of your own spectra"):
            kinds.calibrate(tmp_path / "index", split=tmp_path / "split.json")
        write_mgf(made_library()[:8], tmp_path / "few.mgf")
        with pytest.raises(InputError, match=r"few\.mgf: holds 2 molecules"):
            kinds.calibrate(tmp_path / "index", tmp_path / "few.mgf")
        unlabelled = [dataclasses.replace(spectrum, inchikey=None, smiles=None) for spectrum in made_library()[:8]]
        write_mgf(unlabelled, tmp_path / "unknown.mgf")
        with pytest.raises(InputError, match=r"unknown\.mgf: holds 0 molecules"):
            kinds.calibrate(tmp_path / "index", tmp_path / "unknown.mgf")
    assert Calibration.from_tree(Index.open(tmp_path / "index").manifest["calibration"]).record["from"] == "library"


def test_what_is_told_of_scores_and_probabilities(folder):
    told = calibration_told(Index.open(folder / "index").manifest)
    assert "library spectra as queries" in told["probabilities"]
    assert "130 molecules, hits of another laboratory" in told["cosine within a window"]
    assert calibration_told({})["probabilities"].startswith("none: too few molecules")
    in_milvus = {"milvus": {"uri": "http://127.0.0.1:19530", "collection": "library"}}
    assert calibration_told(in_milvus)["probabilities"] == "none: they are not fitted to a library in Milvus"
    assert scores_told(CountSketchModel(), {})["score_fused"].startswith("none: the model carries no weights")


def test_an_index_in_milvus_is_told_to_have_no_fused_score():
    in_milvus = {"milvus": {"uri": "http://127.0.0.1:19530", "collection": "library"}}
    model = load_model()  # which carries one
    assert "score_fused_open" in scores_told(model, {})
    told = scores_told(model, in_milvus)
    assert set(told) == {"score_cosine", "score_fused"}
    assert told["score_fused"] == "none: a library in Milvus is searched by the embeddings alone"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--adduct", "[M+Q]+"], "[M+Q]+"),
        (["--energy", "high"], "LOW-HIGH"),
        (["--polarity", "up"], "positive or negative"),
        (["--formula", "query"], "name a formula"),
        (["--license", "CC0"], "it has none at all"),
        (["--precursor-da", "0.5", "--open"], "exclude each other"),
    ],
)
def test_wrong_filters_are_told_in_a_line(folder, words, said, monkeypatch):
    monkeypatch.setattr(kinds, "open_index", lambda path: Index.open(path, CountSketchModel()))
    result = CliRunner().invoke(app, ["search", str(folder / "index"), str(folder / "queries.mgf"), *words])
    text = result.output + str(result.exception)
    assert result.exit_code != 0 and said in " ".join(text.split())


def test_a_command_filters_and_takes_a_window_in_da(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(kinds, "open_index", lambda path: Index.open(path, CountSketchModel()))
    words = ["search", str(folder / "index"), str(folder / "queries.mgf"), "--out", str(tmp_path / "hits.tsv")]
    result = CliRunner().invoke(app, [*words, "--precursor-da", "1.5", "--polarity", "pos", "--energy", "10-30"])
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "hits.tsv").read_text().splitlines()
    errors = [abs(float(line.split("\t")[5])) for line in lines[1:]]
    assert len(errors) == 650 and max(errors) > 1000
