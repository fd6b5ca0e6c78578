"""mzTab-M files are valid whatever the hits hold, and summarise them as they are."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from pyteomics import mztab

from ionbed.embeddings.annotation import LEVEL_3_ANALOGUE
from ionbed.embeddings.exports.mztab import write_mztab
from ionbed.embeddings.exports.search_run import SearchRun, confidence_level
from ionbed.embeddings.hit_table import QueryResult
from ionbed.embeddings.search import HitRow
from ionbed.embeddings.structure_search import StructureHitRow
from ionbed.spectra.spectrum import Spectrum

from .made_results import results
from .mztab_validator import MzTabM

RUN = SearchRun(queries="a.mgf", queries_uri="file:///data/a.mgf", settings=("k = 3",))
ALANINE, GLYCINE = "QNAYBMKLOCPYGJ-REOHCLBHSA-N", "DHMQDGOQFOQNFH-UHFFFAOYSA-N"


def written(made, run=RUN) -> MzTabM:
    stream = io.StringIO()
    write_mztab(made, stream, run)
    return MzTabM(stream.getvalue())


def query(name, mz=90.055, **fields):
    peaks = np.array([44.05], np.float32)
    return Spectrum(name, mz, peaks, np.ones(1, np.float32), **{"source_file": "a.mgf", "polarity": 1, **fields})


def hit(query_id, rank, score, **fields):
    known = {"library_id": f"L{rank}", "precursor_error_ppm": 2.0, "adduct": "[M+H]+", "inchikey": ALANINE}
    return HitRow(query_id, 90.055, rank, score, **{**known, **fields})


@given(results())
@settings(max_examples=80)
def test_any_hits_give_a_valid_file(made):
    file = written(made)
    assert len(file.tables["SMF"]) == sum(result.spectrum is not None for result in made)
    assert len(file.tables["SME"]) == sum(row.rank is not None for result in made for row in result.rows)
    assert len(file.comments) == sum(result.spectrum is None for result in made)


@given(results())
@settings(max_examples=25)
def test_pyteomics_reads_as_many_rows(tmp_path_factory, made):
    stream = io.StringIO()
    write_mztab(made, stream, RUN)
    path = tmp_path_factory.mktemp("mztab") / "a.mztab"
    path.write_text(stream.getvalue(), encoding="utf-8")
    own = MzTabM(stream.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = mztab.MzTab(str(path))
    assert file.variant == "M"
    assert [len(table) for _, table in file] == [len(own.tables[prefix]) for prefix in ("SML", "SMF", "SME")]
    assert len(file.ms_runs) == len(own.runs)


def test_molecules_are_summarised_over_queries():
    made = [
        QueryResult("a", query("a"), [hit("a", 1, 0.7, formula="C3H7NO2", name="Ala|nine", confidence="level 2a: x"),
                                      hit("a", 2, 0.6, inchikey=GLYCINE)], 1),
        QueryResult("b", query("b", adduct="[M+Na]+"), [hit("b", 1, 0.9, library_id="other", confidence="level 3")], 2),
        QueryResult("c", query("c"), [HitRow("c", 90.055, note="no library spectrum within 10 ppm")], 3),
        QueryResult("d", None, [HitRow("d", note="no usable peaks")], 4),
    ]  # fmt: skip
    file = written(made)
    first, unknown = file.tables["SML"]
    assert first["SMF_ID_REFS"] == "1|2"
    assert first["database_identifier"] == "lib:other"
    assert first["adduct_ions"] == "[M+H]+|[M+Na]+"
    assert (first["best_id_confidence_value"], first["reliability"]) == ("0.9", "3")
    assert first["abundance_assay[1]"] == first["abundance_study_variable[1]"] == "2"
    assert unknown["database_identifier"] == "null"
    assert (unknown["SMF_ID_REFS"], unknown["reliability"]) == ("3", "5")
    assert unknown["opt_global_note"] == "no library spectrum within 10 ppm"
    assert file.comments == ["not searched: d: no usable peaks"]


def test_what_is_not_likely_this_molecule_is_unknown():
    row = hit("a", 1, 0.7, name="Alanine", confidence="level 5: exact mass only (not likely this molecule)")
    file = written([QueryResult("a", query("a"), [row], 1)])
    (molecule,) = file.tables["SML"]
    assert (molecule["reliability"], molecule["chemical_name"], molecule["SMF_ID_REFS"]) == ("5", "null", "1")
    assert "not likely" in molecule["opt_global_confidence"]
    assert file.tables["SME"][0]["chemical_name"] == "Alanine"


def test_an_analogue_is_named_as_one():
    rows = [hit("a", 1, 0.7, name="Caffeine", formula="C8H10N4O2", smiles="C", confidence=LEVEL_3_ANALOGUE)]
    file = written([QueryResult("a", query("a"), rows, 1), QueryResult("b", query("b"), rows, 2)])
    assert [row["SMF_ID_REFS"] for row in file.tables["SML"]] == ["1", "2"]  # of one molecule's mass or of two
    molecule = file.tables["SML"][0]
    assert (molecule["chemical_name"], molecule["reliability"]) == ("analogue of Caffeine", "3")
    assert molecule["chemical_formula"] == molecule["smiles"] == molecule["theoretical_neutral_mass"] == "null"
    assert file.tables["SME"][0]["chemical_name"] == "Caffeine"
    assert file.tables["SME"][0]["adduct_ion"] == "[M+H]+" and file.tables["SMF"][0]["adduct_ion"] == "null"


@pytest.mark.parametrize(
    ("words", "level"),
    [
        ("level 2a: probable structure (library match)", "2a"),
        ("level 3 at best: analogue", "3"),
        ("level 4: formula only", "4"),
        ("probable structure by library match (Level 2b)", "2b"),
        ("nothing is known", None),
        ("", None),
    ],
)
def test_a_level_is_what_the_words_vouch_for(words, level):
    assert confidence_level(hit("a", 1, 0.5, confidence=words)) == level


def test_a_feature_says_whether_its_hits_are_of_one_molecule():
    made = [
        QueryResult("a", query("a"), [hit("a", 1, 0.7), hit("a", 2, 0.6, inchikey=GLYCINE)], 1),
        QueryResult("b", query("b"), [hit("b", 1, 0.7), hit("b", 2, 0.6)], 2),
        QueryResult("c", query("c"), [hit("c", 1, 0.7)], 3),
    ]
    codes = [row["SME_ID_REF_ambiguity_code"] for row in written(made).tables["SMF"]]
    assert codes == ["1", "2", "null"]


def test_evidence_is_of_the_hit():
    best = hit("a", 1, 0.5, name="L-Alanine", formula="C3H7NO2", smiles="C[C@H](N)C(=O)O", probability=0.25,
               matched_peaks=3, mass_difference=1e-7, confidence="probable structure (level 2a)")  # fmt: skip
    spectrum = query("a", charge=1, retention_time=12.5)
    (row,) = written([QueryResult("a", spectrum, [best], 7)]).tables["SME"]
    assert row["spectra_ref"] == row["evidence_input_id"] == "ms_run[1]:index=6"
    assert row["database_identifier"] == "lib:L1"
    assert row["theoretical_mass_to_charge"] == "90.05482"
    assert (row["exp_mass_to_charge"], row["charge"]) == ("90.055", "1")
    assert (row["id_confidence_measure[1]"], row["id_confidence_measure[2]"]) == ("0.5", "0.25")
    assert row["opt_global_mass_difference"] == "0"
    assert (row["opt_global_matched_peaks"], row["opt_global_reliability"]) == ("3", "2a")


def test_equal_scores_share_a_rank():
    rows = [hit("a", 1, 0.5), hit("a", 2, 0.5), hit("a", 3, 0.4)]
    assert [row["rank"] for row in written([QueryResult("a", query("a"), rows, 1)]).tables["SME"]] == ["1", "1", "3"]


def test_every_file_of_queries_is_a_run_of_its_own():
    thermo = "controllerType=0 controllerNumber=1 scan=11"
    made = [
        QueryResult("a", query("a", source_file="x.mgf"), [hit("a", 1, 0.5)], 4),
        QueryResult("b", query("b", source_file="y z.mzML", native_id=thermo, polarity=-1), [hit("b", 1, 0.5)], 9),
        QueryResult("c", query("c", source_file="x.mgf"), [hit("c", 1, 0.5)], 5),
    ]
    run = SearchRun(queries="both.tar.gz", queries_uri="file:///both.tar.gz")
    file = written(made, run)
    assert file.values["ms_run[1]-location"] == "file:///both.tar.gz#x.mgf"
    assert file.values["ms_run[2]-location"] == "file:///both.tar.gz#y%20z.mzML"
    assert file.values["ms_run[2]-id_format"] == "[MS, MS:1001530, mzML unique identifier, ]"
    assert "negative" in file.values["ms_run[2]-scan_polarity[1]"]
    references = [row["spectra_ref"] for row in file.tables["SME"]]
    assert references == ["ms_run[1]:index=3", f"ms_run[2]:{thermo}", "ms_run[1]:index=4"]
    (molecule,) = file.tables["SML"]
    assert (molecule["abundance_assay[1]"], molecule["abundance_assay[2]"]) == ("2", "1")
    assert molecule["abundance_study_variable[1]"] == "1.5"


@pytest.mark.parametrize(
    ("queries", "source_file", "location"),
    [
        ("a.mgf", "a.mgf", "file:///d/a.mgf"),
        ("folder", "folder/x y/b.mgf", "file:///d/folder/x%20y/b.mgf"),
        ("c.tar.gz", "c.tar.gz!in/b.mgf", "file:///d/c.tar.gz#in/b.mgf"),
        ("c.zip", "other.mgf", "file:///d/c.zip#other.mgf"),
    ],
)
def test_a_run_says_where_its_file_is(queries, source_file, location):
    run = SearchRun(queries=queries, queries_uri=f"file:///d/{queries}")
    file = written([QueryResult("a", query("a", source_file=source_file), [hit("a", 1, 0.5)], 1)], run)
    assert file.values["ms_run[1]-location"] == location
    assert "Mascot MGF" in file.values["ms_run[1]-format"]
    hidden = written([QueryResult("a", query("a"), [hit("a", 1, 0.5)], 1)], SearchRun(queries=queries))
    assert hidden.values["ms_run[1]-location"] == hidden.values["database[1]-uri"] == "null"


def test_spectra_of_a_store_are_known_by_their_ids():
    run = SearchRun(queries="store", queries_uri="file:///store", from_store=True)
    made = [QueryResult("q|1", query("q|1"), [hit("q|1", 1, 0.5)])]
    file = written(made, run)
    assert file.tables["SME"][0]["spectra_ref"] == "ms_run[1]:databasekey=q%7C1"
    assert (
        "databasekey" not in file.values["ms_run[1]-id_format"] and "MS:1001532" in file.values["ms_run[1]-id_format"]
    )


def test_no_query_at_all_gives_a_valid_file():
    file = written([])
    assert file.tables == {"SML": [], "SMF": [], "SME": []}


def test_structures_are_tentative_candidates():
    row = StructureHitRow("a", 90.055, 1, -3.5, id="S1", smiles="CC(N)C(O)=O", mass_error_ppm=None, score_name="fused")
    run = SearchRun(kind="structures", score="fused")
    file = written([QueryResult("a", query("a"), [row], 1)], run)
    (evidence,) = file.tables["SME"]
    assert evidence["theoretical_mass_to_charge"] == "NaN"
    assert evidence["opt_global_reliability"] == file.tables["SML"][0]["reliability"] == "3"
    assert "structures" in evidence["identification_method"]


def broken(text, old, new):
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MTD\tsoftware[1]\t", "MTD\tsoftwares[1]\t"),  # a mandatory field
        ("\nMTD\tquantification_method", "\nMTD\ttitle\ta\nMTD\tquantification_method"),  # order
        ("\t1|2\t1\t", "\t1|9\t1\t"),  # evidence that is not there
        ("\t1|2\t1\t", "\t1|2\tnull\t"),  # no ambiguity code
        ("SML\t1\t1\t", "SML\t1\t2\t"),  # a feature that is not there
        ("\t[M+H]+\t", "\tM+H\t"),
        ("\tnull\t", "\t\t"),  # an empty cell
        ("\t0.7\t", "\t7e-1\t"),
        ("\tms_run[1]:index=0\t[MS", "\tms_run[2]:index=0\t[MS"),
        ("\n\nSFH", "\nSFH"),  # no blank line
        ("SEH\tSME_ID\tevidence_input_id", "SEH\tevidence_input_id\tSME_ID"),
        ("spectral library search", "spectrum library search"),  # a name that is not the term's
        ("MS:1002890, fragmentation score", "MS:1000511, ms level"),  # a term from elsewhere
        ("lib:L1", "bil:L1"),
    ],
)
def test_the_validator_sees_what_is_wrong(old, new):
    stream = io.StringIO()
    write_mztab([QueryResult("a", query("a"), [hit("a", 1, 0.7), hit("a", 2, 0.6, inchikey=GLYCINE)], 1)], stream, RUN)
    MzTabM(stream.getvalue())
    with pytest.raises((AssertionError, ValueError, KeyError)):
        MzTabM(broken(stream.getvalue(), old, new))
