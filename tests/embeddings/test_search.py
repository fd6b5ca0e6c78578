"""The table of hits: every query has its line, with a hit or with the reason why there is none."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from rich.console import Console

from ionbed import InputError
from ionbed.embeddings import annotation
from ionbed.embeddings.filters import Filters
from ionbed.embeddings.hit_table import SearchSummary
from ionbed.embeddings.index import Index
from ionbed.embeddings.kinds import open_index, search
from ionbed.embeddings.search import COLUMNS, HitRow, find, format_hits
from ionbed.embeddings.search_options import SearchOptions
from ionbed.spectra.spectrum import Spectrum


def spectrum(spectrum_id, precursor_mz, peaks, **fields):
    mz, intensity = np.array(peaks, np.float32).T
    return Spectrum(spectrum_id, precursor_mz, mz=mz, intensity=intensity / intensity.max(), **fields)


@pytest.fixture
def index(model):
    return Index.build(
        model,
        [
            spectrum("glucose-20", 180.0634, [(60.02, 10), (85.03, 100)], polarity=1, name="Glucose", adduct="[M+H]+",
                     formula="C6H12O6", smiles="OCC1OC(O)C(O)C(O)C1O", inchikey="WQZGKKKJIJFFOK-UHFFFAOYSA-N",
                     collision_energy=20.0),
            spectrum("fructose", 180.0634, [(57.03, 100), (97.03, 40)], polarity=1,
                     name='D-"Fructose"\tand\nmore', predicted=True),
            spectrum("anion", 250.1, [(88.04, 100)], polarity=-1, name="[x]"),
        ],
    )  # fmt: skip


def record(title, pepmass, charge, *peaks):
    lines = ["BEGIN IONS", f"TITLE={title}", f"PEPMASS={pepmass}", f"CHARGE={charge}", *peaks, "END IONS", ""]
    return "\n".join(lines)


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.mgf"
    path.write_text(
        record("both", 180.0643, "1+", "60.02 10", "85.03 100")
        + record("far", 555.5, "1+", "60.02 10")
        + record("cation", 250.1, "1+", "88.04 100")
        + record("mute", 180.0634, "1+")
        + record("massless", "N/A", "1+", "60.02 10")
        + record("both", 180.0634, "1+", "57.03 100", "97.03 40")
    )
    return path


def read_table(path):
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, dialect="excel-tab"))


def test_every_query_has_its_lines_in_the_order_of_the_file(index, queries, tmp_path):
    summary = search(index, queries, tmp_path / "hits.tsv", SearchOptions(k=5))
    rows = read_table(tmp_path / "hits.tsv")
    assert tuple(rows[0]) == COLUMNS
    assert [(r["query_id"], r["rank"], r["library_id"]) for r in rows] == [
        ("both", "1", "glucose-20"),
        ("both", "2", "fructose"),
        ("far", "", ""),
        ("cation", "", ""),
        ("mute", "", ""),
        ("massless", "", ""),
        ("both#2", "1", "fructose"),
        ("both#2", "2", "glucose-20"),
    ]
    assert (summary.queries, summary.with_hits, summary.without_hits.total()) == (6, 2, 4)


def test_a_hit_says_what_it_is(index, queries, tmp_path):
    search(index, queries, tmp_path / "hits.tsv", SearchOptions(k=1))
    [best] = [r for r in read_table(tmp_path / "hits.tsv") if r["query_id"] == "both"]
    assert best == {
        "query_id": "both",
        "query_precursor_mz": "180.064300",
        "rank": "1",
        "score": "1.000000",
        "probability": "",
        "precursor_error_ppm": f"{(180.0643 - 180.0634) / 180.0634 * 1e6:.4f}",
        "mass_difference": "",
        "difference_formula": "",
        "matched_peaks": "2",
        "name": "Glucose",
        "formula": "C6H12O6",
        "smiles": "OCC1OC(O)C(O)C(O)C1O",
        "inchikey": "WQZGKKKJIJFFOK-UHFFFAOYSA-N",
        "library_id": "glucose-20",
        "adduct": "[M+H]+",
        "collision_energy": "20",
        "instrument_type": "",
        "license": "",
        "predicted": "false",
        "confidence": "level 3 at best: library match, its probability is not known",
        "warnings": "2 peaks only",
        "note": "",
        "score_name": "cosine",
    }


def test_tabs_and_line_ends_in_a_name_do_not_break_the_table(index, queries, tmp_path):
    search(index, queries, tmp_path / "hits.tsv", SearchOptions(k=1))
    last = read_table(tmp_path / "hits.tsv")[-1]
    assert (last["name"], last["predicted"], last["smiles"]) == ('D-"Fructose" and more', "true", "")
    assert len((tmp_path / "hits.tsv").read_text().splitlines()) == 7


def test_a_query_without_a_hit_says_why(index, queries):
    notes = {row.query_id: row.note for row in find(index, queries, SearchOptions(precursor_ppm=12.5))}
    assert notes["far"] == "no library spectrum within 12.5 ppm"
    assert notes["cation"] == "every library spectrum within 12.5 ppm has the other polarity"
    assert notes["mute"].startswith("no usable peaks")
    assert "no-precursor-mz" in notes["massless"]
    assert notes["both"] == ""


def test_open_search_finds_any_precursor(index, queries, model):
    rows = [row for row in find(index, queries, SearchOptions(precursor_ppm=None)) if row.query_id == "far"]
    assert {row.library_id for row in rows} == {"glucose-20", "fructose"}
    only_anion = Index.build(model, [spectrum("anion", 250.1, [(88.04, 1)], polarity=-1)])
    notes = {row.query_id: row.note for row in find(only_anion, queries, SearchOptions(precursor_ppm=None))}
    assert notes["far"] == "every library spectrum has the other polarity"


def test_the_table_does_not_depend_on_how_many_are_searched_at_once(index, queries, tmp_path, monkeypatch):
    search(index, queries, tmp_path / "a.tsv")
    monkeypatch.setattr("ionbed.embeddings.queries.QUERIES_AT_ONCE", 2)
    search(index, queries, tmp_path / "b.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_survey_scans_are_no_queries(index, tmp_path):
    path = tmp_path / "queries.mgf"
    survey = record("survey", 180.0634, "1+", "60.02 10").replace("CHARGE", "MSLEVEL=1\nCHARGE")
    path.write_text(survey + record("fragments", 180.0634, "1+", "60.02 10"))
    assert {row.query_id for row in find(index, path)} == {"fragments"}


def test_a_prepared_store_can_be_the_queries(index, queries, tmp_path):
    from ionbed.spectra.prepare import prepare

    prepare([queries], tmp_path / "store", workers=1)
    rows = list(find(index, tmp_path / "store", SearchOptions(k=1)))
    assert [row.query_id for row in rows] == ["both", "far", "cation", "both#2"]


def test_bad_words_are_told_at_once_and_nothing_is_written(index, queries, tmp_path):
    with pytest.raises(InputError, match="ppm"):
        find(index, queries, SearchOptions(precursor_ppm=-1))
    with pytest.raises(InputError, match="hits"):
        find(index, queries, SearchOptions(k=0))
    with pytest.raises(InputError, match=r"nowhere\.mgf"):
        search(index, tmp_path / "nowhere.mgf", tmp_path / "hits.tsv")
    with pytest.raises(InputError, match="no such folder"):
        search(open_index(tmp_path / "no-index"), queries, tmp_path / "hits.tsv")
    with pytest.raises(InputError, match="is a folder"):
        search(index, queries, tmp_path)
    with pytest.raises(InputError, match="is the input itself"):
        search(index, queries, queries)
    assert [path.name for path in tmp_path.iterdir()] == ["queries.mgf"]


def test_a_search_that_fails_leaves_no_table(index, queries, tmp_path, monkeypatch):
    monkeypatch.setattr(Index, "search", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        search(index, queries, tmp_path / "hits.tsv")
    assert [path.name for path in tmp_path.iterdir()] == ["queries.mgf"]


def shown(rows, **options):
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(format_hits(rows, **options))
    return capture.get()


def test_people_see_hits_and_reasons(index, queries):
    text = shown(find(index, queries))
    assert "both  m/z 180.0643" in text
    assert "  1        1.000   3-5     2        +5.0 ppm Glucose C6H12O6" in text
    assert "(predicted)" in text
    assert "no library spectrum within 10 ppm" in text
    assert "massless\n  not usable: no-precursor-mz" in text


def test_people_see_how_far_to_trust_a_hit_within_100_columns():
    rows = [
        HitRow("q", 214.0157, 1, 0.912, 0.973, 2.13, 0.0005, "", 12, "Glucose", "C6H12O6",
               confidence=annotation.LEVEL_2A),
        HitRow("q", 214.0157, 2, 0.85, 0.012, 7e4, 14.01565, "CH2", 7, confidence=annotation.LEVEL_3_ANALOGUE),
        HitRow("q", 214.0157, 3, 0.84, None, -7e4, None, "", 7, predicted=True, confidence=annotation.LEVEL_4),
    ]  # fmt: skip
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(format_hits(rows))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 100
    other_ion = HitRow("q", 214.0157, 1, 0.9, None, 2.13, -17.0265, "", 7)
    assert "-17.026" in shown([other_ion]) and "ppm" not in shown([other_ion])
    assert lines[2].startswith("  1  0.97  0.912    2a    12        +2.1 ppm Glucose C6H12O6")
    assert lines[3].startswith("  2  0.01  0.850   3-5     7     +14.016 CH2")
    assert lines[4].startswith("  3        0.840   4-5     7     -16.109 m/z (predicted)")


def test_the_summary_counts_likely_hits_and_how_many_of_them_may_be_wrong():
    summary = SearchSummary()
    level_2a = {"confidence": annotation.LEVEL_2A}
    for probability, told in ((0.99, level_2a), (0.91, level_2a), (0.5, {}), (None, {})):
        summary.count(HitRow("q", 100.0, 1, 0.9, probability, **told))
        summary.count(HitRow("q", 100.0, 2, 0.8, 0.95, **level_2a))  # of the same query
    assert str(summary) == (
        "4 queries: 4 with hits (2 of level 2a, 5% of them wrong if the library has half of the queries' molecules)"
    )
    none = SearchSummary()
    none.count(HitRow("q", 100.0, 1, 0.9, 0.95, confidence=annotation.LEVEL_3_FLATTERED))
    assert str(none) == "1 query: 1 with hits (0 of level 2a)"
    without = SearchSummary()
    without.count(HitRow("q", 100.0, 1, 0.9))
    assert str(without) == "1 query: 1 with hits"


def test_filters_leave_nothing_and_say_so(index, queries):
    def notes(filters, **options):
        return {row.query_id: row.note for row in find(index, queries, SearchOptions(filters=filters, **options))}

    found = notes(Filters(adducts=("[M+H]+",)))
    assert found["both"] == "" and found["far"] == "no library spectrum within 10 ppm"
    assert found["cation"] == "every library spectrum within 10 ppm has the other polarity"
    none = notes(Filters(polarity=-1))
    assert none["both"] == "of 2 library spectra within 10 ppm none has polarity negative"
    assert notes(Filters(polarity=-1), precursor_da=0.5)["both"].startswith("of 2 library spectra within 0.5 Da none")
    wide = notes(Filters(polarity=-1), precursor_ppm=None)
    assert wide["far"] == "of 2 library spectra none has polarity negative"
    rows = list(find(index, queries, SearchOptions(filters=Filters(energy=(10.0, 30.0)), precursor_da=1.0)))
    assert {row.library_id for row in rows if row.rank} == {"glucose-20"}
    with pytest.raises(InputError, match=r"no library spectrum has the adduct \[M\+K\]\+; it has"):
        find(index, queries, SearchOptions(filters=Filters(adducts=("[M+K]+",))))


def test_people_see_brackets_and_are_told_what_is_left_out():
    rows = [
        HitRow(f"[q{i}]", 100.0, 1, 0.5, None, -0.2, name="[bold]", adduct="[M+H]+", library_id="[l]") for i in range(5)
    ]
    text = shown(rows, max_queries=2)
    assert "[q1]" in text
    assert "[q2]" not in text
    assert text.count("[bold]") == text.count("[M+H]+") == text.count("[l]") == 2
    assert "and 3 more queries" in text
    assert "no queries" in shown([])


def test_why_an_open_search_finds_nothing_is_worked_out_once_for_all_queries_of_a_polarity(index, queries, monkeypatch):
    asked, once = [], Filters.why_none
    monkeypatch.setattr(Filters, "why_none", lambda self, table: (asked.append(len(table)), once(self, table))[1])
    told = [row.note for row in find(index, queries, SearchOptions(filters=Filters(polarity=-1), precursor_ppm=None))]
    assert sum(note == "of 2 library spectra none has polarity negative" for note in told) > 1
    assert asked == [2]
