"""``ionbed search`` among structures: every query has its line; the words are those of the other index."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ionbed import InputError, cli
from ionbed.embeddings import annotation, kinds
from ionbed.embeddings.filters import Filters
from ionbed.embeddings.index import Index
from ionbed.embeddings.kinds import search
from ionbed.embeddings.search_options import SearchOptions
from ionbed.embeddings.structure_candidates import USUAL_ADDUCTS
from ionbed.embeddings.structure_index import StructureIndex
from ionbed.embeddings.structure_search import COLUMNS, StructureHitRow, find, format_hits
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.molecule_files import NamedStructure

from .test_structure_index import TowerModel

MOLECULES = (
    ("CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "H1", "Caffeine"),
    ("CC(=O)Nc1ccc(O)cc1", "H2", "Paracetamol"),
    ("OC(=O)c1cccnc1", "H3", "Nicotinic\tacid"),
    ("OC(=O)c1ccccn1", "H4", ""),
)


def record(title, pepmass, *lines):
    return "\n".join(["BEGIN IONS", f"TITLE={title}", f"PEPMASS={pepmass}", *lines, "END IONS", ""])


@pytest.fixture(scope="module")
def index():
    entries = [NamedStructure(name, smiles, n, key) for n, (smiles, key, name) in enumerate(MOLECULES, start=1)]
    return StructureIndex.build(TowerModel(), entries)


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.mgf"
    path.write_text(
        record("known", 195.0877, "ADDUCT=[M+H]+", "69.04 10", "138.06 100")
        + record("isomers", 122.0248, "ADDUCT=[M-H]-", "78.03 100")
        + record("unknown", 124.0393, "IONMODE=positive", "78.03 100", "80.05 30")
        + record("far", 555.5, "ADDUCT=[M+H]+", "69.04 10")
        + record("mute", 195.0877, "ADDUCT=[M+H]+")
        + record("survey", 195.0877, "MSLEVEL=1", "69.04 10")
        + record("known", 152.0706, "ADDUCT=[M+H]+", "FORMULA=C8H9NO2", "110.06 100")
    )
    return path


def read_table(path):
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, dialect="excel-tab"))


def test_every_query_has_its_lines_in_the_order_of_the_file(index, queries, tmp_path, monkeypatch):
    summary = search(index, queries, tmp_path / "hits.tsv", SearchOptions(k=5))
    rows = read_table(tmp_path / "hits.tsv")
    assert tuple(rows[0]) == COLUMNS
    assert [(r["query_id"], r["rank"]) for r in rows] == [
        ("known", "1"),
        ("isomers", "1"),
        ("isomers", "2"),
        ("unknown", "1"),
        ("unknown", "2"),
        ("far", ""),
        ("mute", ""),
        ("known#2", "1"),
    ]
    assert {r["id"] for r in rows if r["query_id"] == "isomers"} == {"H3", "H4"}
    assert (summary.queries, summary.with_hits, summary.without_hits.total()) == (6, 4, 2)
    monkeypatch.setattr("ionbed.embeddings.queries.QUERIES_AT_ONCE", 2)
    search(index, queries, tmp_path / "again.tsv", SearchOptions(k=5))
    assert (tmp_path / "again.tsv").read_bytes() == (tmp_path / "hits.tsv").read_bytes()


def test_more_hits_may_be_asked_for_than_there_are_structures(index, queries):
    assert [row.rank for row in find(index, queries, SearchOptions(k=10**12))] == [
        row.rank for row in find(index, queries, SearchOptions(k=4))
    ]


def test_a_hit_says_what_it_is(index, queries, tmp_path):
    search(index, queries, tmp_path / "hits.tsv")
    rows = {(r["query_id"], r["id"]): r for r in read_table(tmp_path / "hits.tsv")}
    caffeine = dict(rows["known", "H1"])
    assert -1 <= float(caffeine.pop("score")) <= 1
    assert float(caffeine.pop("mass_error_ppm")) == pytest.approx(0.25, abs=0.05)
    assert caffeine == {
        "query_id": "known",
        "query_precursor_mz": "195.087700",
        "rank": "1",
        "id": "H1",
        "name": "Caffeine",
        "smiles": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
        "inchikey": "RYYVLZVUVIJVGH-UHFFFAOYSA-N",
        "formula": "C8H10N4O2",
        "adduct": "[M+H]+",
        "candidates": "1",
        "note": "",
        "score_name": "cosine",
        "probability": "",
        "confidence": "level 3: tentative candidate (structure database)",
        "warnings": caffeine["warnings"],
    }
    assert (rows["isomers", "H3"]["name"], rows["isomers", "H4"]["name"]) == ("Nicotinic acid", "")
    assert rows["unknown", "H3"]["note"].startswith("adduct unknown: tried [M+H]+, [M+Na]+")
    assert rows["far", ""]["note"] == "no structure within 10 ppm as [M+H]+"
    assert rows["far", ""]["candidates"] == "0"
    assert rows["mute", ""]["note"].startswith("no usable peaks")
    assert rows["mute", ""]["candidates"] == ""


def test_candidates_by_formula_and_in_open_search(index, queries):
    rows = list(find(index, queries, SearchOptions(formula="query")))
    assert [(row.query_id, row.id) for row in rows if row.rank] == [("known#2", "H2")]
    assert {row.note for row in rows if row.query_id == "far"} == {"the query's formula is unknown"}
    given = [row.id for row in find(index, queries, SearchOptions(formula="C6H5NO2")) if row.query_id == "far"]
    assert set(given) == {"H3", "H4"}
    anything = [row for row in find(index, queries, SearchOptions(precursor_ppm=None)) if row.query_id == "far"]
    assert {row.id for row in anything} == {"H1", "H2", "H3", "H4"}
    assert {row.candidates for row in anything} == {4}
    # What has another mass is no candidate, whether it was asked for openly or by a formula.
    far = [row for row in find(index, queries, SearchOptions(formula="C6H5NO2")) if row.query_id == "far"]
    assert {row.confidence for row in (*anything, *far)} == {annotation.LEVEL_3_ANALOGUE}
    levels = {(row.query_id, row.id): row.confidence for row in find(index, queries, SearchOptions(precursor_ppm=None))}
    assert levels["known", "H1"] == annotation.LEVEL_3_STRUCTURE
    assert levels["unknown", "H1"] == annotation.LEVEL_3_ANY_MASS
    by_formula = {row.confidence for row in find(index, queries, SearchOptions(formula="query")) if row.rank}
    assert by_formula == {annotation.LEVEL_3_STRUCTURE}


def test_hits_to_read(index, queries):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(format_hits(find(index, queries), max_queries=4))
    text = console.export_text()
    for words in (
        "Caffeine",
        "1 candidate; 2 peaks only\n",
        "2 candidates;",
        "0 candidates;",
        "[M+H]+",
        "adduct unknown: tried",
        "no structure within 10 ppm",
        "and 2 more queries",
    ):
        assert words in text


def test_a_fused_score_is_shown_whole():
    console = Console(record=True, width=100, file=io.StringIO())
    rows = [
        StructureHitRow("q", 100.0, rank, score, candidates=2, score_name="fused")
        for rank, score in ((1, 12.5), (2, -12.3456))
    ]
    console.print(format_hits(rows))
    assert re.search(r" 12\.500 .* -12\.346 ", console.export_text(), re.DOTALL)


def test_a_summary_names_the_commonest_reasons_only(index, tmp_path):
    (tmp_path / "q.mgf").write_text(
        "".join(record(f"q{n}", 200.0 + n, f"FORMULA=C{n + 30}H9", "69.04 10") for n in range(8))
    )
    summary = search(index, tmp_path / "q.mgf", tmp_path / "hits.tsv", SearchOptions(formula="query"))
    assert summary.without_hits.total() == 8
    assert str(summary).count("no structure of the formula") == 5
    assert str(summary).endswith(", 3 without for other reasons")


def test_bad_words_are_told_at_once_and_nothing_is_written(index, queries, tmp_path):
    with pytest.raises(InputError, match="ppm"):
        find(index, queries, SearchOptions(precursor_ppm=-1))
    with pytest.raises(InputError, match="is no formula"):
        search(index, queries, tmp_path / "hits.tsv", SearchOptions(formula="sugar"))
    with pytest.raises(InputError, match="nowhere"):
        search(index, tmp_path / "nowhere.mgf", tmp_path / "hits.tsv")
    with pytest.raises(InputError, match="is the input itself"):
        search(index, queries, queries)
    assert [path.name for path in tmp_path.iterdir()] == ["queries.mgf"]


def test_the_formula_of_each_query_is_no_option_of_an_index_of_spectra(model, library, queries, tmp_path):
    spectra = Index.build(model, library)
    for wrong in (
        lambda: kinds.search(spectra, queries, tmp_path / "hits.tsv", SearchOptions(formula="query")),
        lambda: kinds.formatted_search(spectra, queries, SearchOptions(formula="query")),
    ):
        with pytest.raises(InputError, match="is an index of spectra"):
            wrong()
    assert not (tmp_path / "hits.tsv").exists()


def test_filters_of_spectra_are_no_options_of_an_index_of_structures(index, queries, tmp_path):
    for wrong in ({"precursor_da": 0.5}, {"filters": Filters(polarity=1)}):
        with pytest.raises(InputError, match="is an index of structures"):
            kinds.search(index, queries, tmp_path / "hits.tsv", SearchOptions(**wrong))


def test_the_commands_build_describe_and_search(queries, tmp_path, capsys):
    torch.manual_seed(0)
    IonbedModel(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, molecule_tower=16)).save_pretrained(
        tmp_path / "model"
    )
    IonbedModel(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4)).save_pretrained(tmp_path / "plain")
    (tmp_path / "m.tsv").write_text("smiles\tid\tname\n" + "".join("\t".join(m[:2]) + "\tx\n" for m in MOLECULES))
    folder, hits = str(tmp_path / "index"), str(tmp_path / "hits.tsv")
    words = ["index", "build", str(tmp_path / "m.tsv"), "--out", folder, "--workers", "1"]
    assert cli.main([*words, "--model", str(tmp_path / "plain")]) == 2
    assert "not trained with structures" in capsys.readouterr().err
    assert cli.main([*words, "--model", str(tmp_path / "model")]) == 0
    assert "4 structures" in capsys.readouterr().err
    assert cli.main(["index", "info", folder]) == 0
    out = capsys.readouterr().out
    assert "structures      4" in out
    assert cli.main(["search", folder, str(queries), "--out", hits]) == 0
    assert "6 queries: 4 with hits" in capsys.readouterr().err
    rows = read_table(hits)
    assert rows[0]["id"] == "H1"
    embeddings = StructureIndex.open(folder)
    [[best]] = embeddings.search([next(iter(read_spectra(queries)))])
    assert float(rows[0]["score"]) == pytest.approx(best.score, abs=1e-5)
    assert cli.main(["search", folder, str(queries), "--formula", "C6H5NO2"]) == 0
    assert "H3" in capsys.readouterr().out
    assert cli.main(["search", folder, str(queries), "--formula", "C6H5NO2", "--open"]) == 2


def test_the_page_names_the_ions_that_are_tried():
    page = (Path(__file__).parents[2] / "docs" / "structures.md").read_text(encoding="utf-8")
    for sign, word in ((1, "positive"), (-1, "negative")):
        [line] = [line for line in page.splitlines() if line.startswith(f"- {word}: ")]
        assert tuple(re.findall(r"`(.+?)`", line)) == USUAL_ADDUCTS[sign]


def read_spectra(path):
    from ionbed import read

    return read(path)
