"""The index of structures: one row for each molecule, exact candidates for every ion, a folder opened only whole."""

from __future__ import annotations

import json
import shutil
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest

import ionbed
from ionbed import InputError
from ionbed.embeddings.index import Index
from ionbed.embeddings.kinds import open_index
from ionbed.embeddings.structure_candidates import USUAL_ADDUCTS
from ionbed.embeddings.structure_index import StructureIndex, build
from ionbed.embeddings.structure_rows import STRUCTURE_SCHEMA, structure_rows
from ionbed.spectra.adducts import adduct_mz, normalise_adduct
from ionbed.spectra.molecule_files import NamedStructure
from ionbed.spectra.spectrum import Spectrum

from ..conftest import SMILES
from .conftest import CountSketchModel, random_spectrum

CHOLINE = "C[N+](C)(C)CCO"
BETAINE, VALINE = "C[N+](C)(C)CC(=O)[O-]", "CC(C)C(N)C(=O)O"  # isomers


class TowerModel(CountSketchModel):
    """Stands in for a model that was trained with structures: each structure is a random direction."""

    def embed_molecules(self, smiles, *, workers=1, progress=False):
        if not len(smiles):
            return np.empty((0, self.dim), np.float32)
        vectors = np.stack(
            [np.random.default_rng([self.seed, zlib.crc32(s.encode())]).normal(size=self.dim) for s in smiles]
        )
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class NoTowerModel(CountSketchModel):
    def embed_molecules(self, smiles, *, workers=1, progress=False):
        raise InputError("the model was not trained with structures")


@pytest.fixture(scope="module")
def tower() -> TowerModel:
    return TowerModel()


@pytest.fixture(scope="module")
def index(tower) -> StructureIndex:
    return StructureIndex.build(tower, [*SMILES, CHOLINE, "not a molecule"])


@pytest.fixture
def saved(index, tmp_path):
    index.save(tmp_path / "index")
    return tmp_path / "index"


def query(precursor_mz, adduct=None, **fields) -> Spectrum:
    rng = np.random.default_rng(int(precursor_mz * 1000))
    return random_spectrum(rng, "query", precursor_mz=precursor_mz, adduct=adduct, **{"polarity": None, **fields})


def entries_of(*lines: tuple[str, str, str]) -> list[NamedStructure]:
    return [NamedStructure(name, smiles, n, identifier) for n, (smiles, identifier, name) in enumerate(lines, start=1)]


def rows_of(*lines: tuple[str, str, str]):
    rows, dropped, num_read = structure_rows(entries_of(*lines))
    assert num_read == sum(rows["entries"].to_pylist()) + len(dropped)
    return rows.to_pylist(), dropped.to_pylist()


def test_entries_of_one_molecule_are_one_row_with_all_their_names():
    rows, _ = rows_of(
        ("C[C@H](N)C(=O)O", "D1", "L-alanine"),
        ("C[C@@H](N)C(=O)O", "D2", "D-alanine"),
        ("C[C@@H]([NH3+])C(=O)[O-]", "D2", "alanine\tzwitterion"),
        ("Cl.CC(N)C(=O)O", "", "alanine hydrochloride"),
        ("CC(N)C(=O)[O-].[K+]", "", ""),
        ("NCCC(=O)O", "D3", ""),
    )
    by_id = {row["id"].split(";")[0]: row for row in rows}
    assert set(by_id) == {"D1", "D3"}
    assert by_id["D1"]["id"] == "D1; D2; alanine hydrochloride; #5"
    assert by_id["D1"]["name"] == "L-alanine; D-alanine; alanine zwitterion; alanine hydrochloride"
    assert by_id["D1"]["smiles"] == "C[C@H](N)C(=O)O"
    assert (by_id["D1"]["entries"], by_id["D1"]["charge"], by_id["D1"]["formula"]) == (5, 0, "C3H7NO2")
    assert by_id["D1"]["mass"] == pytest.approx(89.047678, abs=1e-6)
    assert by_id["D3"]["name"] is None


def test_isotopes_are_another_row_for_they_have_another_mass():
    rows, _ = rows_of(("CO", "a", ""), ("[2H]C([2H])([2H])O", "b", ""))
    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[0]["inchikey"][:14] == rows[1]["inchikey"][:14]
    assert rows[1]["mass"] - rows[0]["mass"] == pytest.approx(3 * 1.006277, abs=1e-5)


def test_entries_without_a_structure_are_listed_with_the_reason():
    rows, dropped = rows_of(
        ("CO", "a", ""), ("C1CC", "b", "open ring"), ("", "c", "nothing"), ("  ", "d", ""), (None, "e", "")
    )
    assert [row["id"] for row in rows] == ["a"]
    assert [(row["position"], row["id"], row["reason"]) for row in dropped] == [
        (2, "b", "unreadable"),
        (3, "c", "no-structure"),
        (4, "d", "no-structure"),
        (5, "e", "unreadable"),
    ]
    with pytest.raises(InputError, match=r"no structure to index \(1 unreadable, 1 no-structure\)"):
        rows_of(("C1CC", "", ""), ("", "", ""))
    with pytest.raises(InputError, match="there are none"):
        structure_rows([])


def test_one_text_is_no_list_of_structures(tower):
    with pytest.raises(InputError, match="is one text; give a list of SMILES"):
        StructureIndex.build(tower, "CCO")


def test_several_processes_read_the_same_rows(monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.structure_rows._PER_TASK", 7)
    serial = structure_rows(SMILES)
    monkeypatch.setattr("ionbed.embeddings.structure_rows._WORTH_PROCESSES", 0)
    parallel = structure_rows(SMILES, workers=2)
    assert parallel[0].equals(serial[0])


def test_rows_are_in_order_of_mass_and_their_vectors_are_theirs(index, tower):
    assert len(index) == len(SMILES) + 1
    assert (np.diff(index.mass) >= 0).all()
    np.testing.assert_array_equal(index.vectors, tower.embed_molecules(index.metadata["smiles"].to_pylist()))
    isomers = [row["inchikey"] for row in index.metadata.to_pylist() if row["formula"] == "C6H5NO2"]
    assert len(isomers) == 3
    assert isomers == sorted(isomers)
    assert index.manifest["counts"] == {"read": 26, "kept": 25, "merged": 0, "dropped": {"unreadable": 1}}


def plain_candidates(index, spectrum, ppm, adducts, guessed):
    """Return row -> (error, adduct), by trying every structure as every adduct."""
    found = {}
    formulas = index.metadata["formula"].to_pylist()
    for row, (mass, charge) in enumerate(zip(index.mass.tolist(), index.charge.tolist(), strict=True)):
        for name in adducts:
            if "-H2O" in name and "O" not in formulas[row]:
                continue
            if charge and name != "[M]+":
                continue
            if not charge and name == "[M]+" and guessed:
                continue
            mz = adduct_mz(mass, normalise_adduct(name))
            error = (spectrum.precursor_mz - mz) / mz * 1e6
            if abs(error) <= ppm and (row not in found or abs(error) < abs(found[row][0])):
                found[row] = (error, name)
    return found


@pytest.mark.parametrize("ppm", [5.0, 300.0, 100_000.0])
@pytest.mark.parametrize("k", [1, 3, 40])
def test_search_gives_what_trying_every_structure_gives(index, tower, k, ppm):
    masses = index.mass[[0, 4, 11, 12, 24]]
    queries = [
        query(
            adduct_mz(mass, normalise_adduct(adduct)) * (1 + 2e-6), adduct, polarity=normalise_adduct(adduct).polarity
        )
        for mass in masses
        for adduct in ("[M+H]+", "[M-H]-", "[2M+Na]+", "[M+2H]2+", "[M]+")
    ]
    queries += [query(adduct_mz(mass, normalise_adduct("[M+Na]+")), polarity=1) for mass in masses]
    queries += [query(adduct_mz(mass, normalise_adduct("[M-H]-"))) for mass in masses]
    hits = index.search(queries, k=k, precursor_ppm=ppm)
    vectors = tower.embed(queries)
    assert hits.rows.shape == (len(queries), k)
    for i, spectrum in enumerate(queries):
        stated = spectrum.adduct is not None
        polarities = [spectrum.polarity] if spectrum.polarity else [1, -1]
        adducts = [spectrum.adduct] if stated else [name for sign in polarities for name in USUAL_ADDUCTS[sign]]
        allowed = plain_candidates(index, spectrum, ppm, adducts, guessed=not stated)
        scores = (index.vectors.astype(float) * vectors[i]).sum(axis=1).astype(np.float32)
        expected = [row for row in np.lexsort((np.arange(len(index)), -scores)) if row in allowed][:k]
        assert hits.num_candidates[i] == len(allowed)
        assert [hit.row for hit in hits[i]] == expected
        assert [hit.score for hit in hits[i]] == scores[expected].tolist()
        assert [hit.adduct for hit in hits[i]] == [allowed[row][1] for row in expected]
        np.testing.assert_allclose(
            [hit.mass_error_ppm for hit in hits[i]], [allowed[row][0] for row in expected], rtol=1e-6, atol=1e-6
        )
        assert (hits.rows[i, len(expected) :] == -1).all()
        assert np.isnan(hits.scores[i, len(expected) :]).all()


def test_the_window_ends_where_it_says(index):
    mass = float(index.mass[20])
    for adduct in (normalise_adduct("[M+H]+"), normalise_adduct("[2M+K]+"), normalise_adduct("[M-2H]2-")):
        mz = adduct_mz(mass, adduct)
        for ppm, inside in ((9.999, True), (10.001, False)):
            for sign in (1, -1):
                [found] = index.search([query(mz * (1 + sign * ppm * 1e-6), adduct.name)], k=40)
                assert (20 in [hit.row for hit in found]) is inside


def test_a_charged_molecule_has_only_ions_of_its_charge(index):
    mass = 104.107539
    for name, is_found in (("[M]+", True), ("[M+H]2+", True), ("[M+H]+", False), ("[M+Na]+", False)):
        adduct = normalise_adduct(name)
        hits = index.search([query(adduct_mz(mass, adduct), name)])
        assert ([hit.metadata["smiles"] for hit in hits[0]] == [CHOLINE]) is is_found
    [[hit]] = index.search([query(adduct_mz(mass, normalise_adduct("[M]+")), polarity=1)])
    assert (hit.metadata["smiles"], hit.adduct) == (CHOLINE, "[M]+")


@pytest.mark.parametrize("drawn", ["C[N+](C)(C)CC(O)=O", "C[N+](C)(C)CC([O-])=O", "[Cl-].C[N+](C)(C)CC(O)=O"])
def test_a_charge_that_an_acid_balances_is_found_however_it_is_drawn_and_stated(tower, drawn):
    index = StructureIndex.build(tower, [drawn, VALINE])
    betaine, valine = (index.metadata["smiles"].to_pylist().index(text) for text in (BETAINE, VALINE))
    expected = {
        ("[M+H]+", 118.0863): ({betaine, valine}, "[M+H]+"),
        ("[M]+", 118.0863): ({betaine}, "[M+H]+"),
        ("[M-H]-", 116.0717): ({betaine, valine}, "[M-H]-"),
        ("[M-2H]-", 116.0717): ({betaine}, "[M-H]-"),
        ("[M+H]2+", 59.5468): ({betaine}, "[M+2H]2+"),
        (None, 118.0863): ({betaine, valine}, "[M+H]+"),
    }
    for (stated, mz), (rows, found_as) in expected.items():
        (hits,) = index.search([query(mz, stated, polarity=1)])
        assert ({hit.row for hit in hits}, {hit.adduct for hit in hits}) == (rows, {found_as}), stated
        assert all(abs(hit.mass_error_ppm) < 2 for hit in hits), stated


def test_the_formula_of_a_cation_is_that_of_the_molecule_without_its_proton(tower):
    index = StructureIndex.build(tower, [BETAINE, VALINE, CHOLINE])
    smiles = index.metadata["smiles"].to_pylist()

    def found(formula):
        (hits,) = index.search([query(118.0863, formula=formula)], formula="query")
        return {smiles[hit.row] for hit in hits}

    assert found("C5H12NO2+") == {BETAINE}
    for options in ({"formula": "C5H12NO2+"}, {"precursor_ppm": None}):
        (hits,) = index.search([query(118.0863, "[M]+")], **options)
        (betaine,) = (hit for hit in hits if smiles[hit.row] == BETAINE)
        assert betaine.adduct == "[M+H]+" and abs(betaine.mass_error_ppm) < 2
    assert found("C5H11NO2") == {BETAINE, VALINE} and found("C5H12NO2") == set()
    assert found("C5H14NO+") == found("C5H14NO") == {CHOLINE} and found("C5H15NO+") == set()


def test_drawings_of_a_molecule_with_a_balanced_charge_are_one_row():
    rows, _ = rows_of(("C[N+](C)(C)CC(O)=O", "1", "cation"), ("C[N+](C)(C)CC([O-])=O", "2", "betaine"))
    assert [(row["entries"], row["charge"], row["anions"], row["formula"]) for row in rows] == [(2, 0, 1, "C5H11NO2")]


def test_a_neutral_molecule_is_a_radical_cation_only_where_the_query_says_so(index):
    mz = adduct_mz(float(index.mass[10]), normalise_adduct("[M]+"))
    assert 10 in [hit.row for hit in index.search([query(mz, "[M]+")], k=40)[0]]
    assert 10 not in [hit.row for hit in index.search([query(mz, polarity=1)], k=40)[0]]


def test_a_negative_charge_tells_the_polarity(index):
    (note,) = index.search([query(200.0, charge=-1)]).notes
    assert "[M-H]-" in note and "[M+H]+" not in note and "polarity" not in note
    (note,) = index.search([query(200.0, charge=1)]).notes
    assert "[M-H]-" in note and "[M+H]+" in note and "polarity unknown" in note


def test_what_has_no_oxygen_loses_no_water(tower):
    index = StructureIndex.build(tower, ["CCCCCCN", "CCCCCCO"])
    loss = normalise_adduct("[M+H-H2O]+")
    for row, (formula, found) in enumerate([("C6H15N", []), ("C6H14O", ["[M+H-H2O]+"])]):
        assert index.metadata["formula"][row].as_py() == formula
        mz = adduct_mz(index.mass[row], loss)
        for stated in ("[M+H-H2O]+", None):
            assert [hit.adduct for hit in index.search([query(mz, stated, polarity=1)])[0]] == found, formula


def test_an_unknown_adduct_is_told_with_what_was_tried(index):
    mz = adduct_mz(float(index.mass[10]), normalise_adduct("[M+H]+"))
    far = 5000.0
    hits = index.search(
        [
            query(mz, "[M+H]+"),
            query(mz, polarity=1),
            query(mz),
            query(mz, polarity=1, charge=2),
            query(mz, "[M+odd]+", polarity=1, charge=1),
            query(far, polarity=-1),
            query(far, "[M-H]-"),
            query(far, polarity=1, charge=9),
        ],
        precursor_ppm=10.0,
    )
    positive = "[M+H]+, [M+Na]+, [M+NH4]+, [M+K]+, [M+H-H2O]+, [M]+, [2M+H]+, [2M+Na]+"
    negative = ", ".join(USUAL_ADDUCTS[-1])
    assert hits.notes[0] == ""
    assert hits.notes[1] == f"adduct unknown: tried {positive}, [M+2H]2+, [M+3H]3+"
    assert hits.notes[2] == f"adduct and polarity unknown: tried {positive}, [M+2H]2+, [M+3H]3+, {negative}"
    assert "(adduct unknown: tried [M+2H]2+)" in hits.notes[3]
    assert hits.notes[4] == f"adduct '[M+odd]+' not understood: tried {positive}"
    assert hits.notes[5] == f"no structure within 10 ppm as a usual adduct (adduct unknown: tried {negative})"
    assert hits.notes[6] == "no structure within 10 ppm as [M-H]-"
    assert hits.notes[7] == "adduct unknown: no usual one of +9"
    assert [len(of_query) > 0 for of_query in hits] == [True, True, True, False, True, False, False, False]
    assert all(name == normalise_adduct(name).name for names in USUAL_ADDUCTS.values() for name in names)
    assert all(normalise_adduct(name).polarity == sign for sign, names in USUAL_ADDUCTS.items() for name in names)


def test_candidates_of_a_formula(index):
    mz = adduct_mz(123.032, normalise_adduct("[M+H]+"))
    queries = [
        query(mz, "[M+H]+", formula="C6H5NO2"),
        query(mz, formula="C5H14NO"),
        query(mz),
        query(mz, formula="no formula"),
        query(mz, formula="C99H2"),
    ]
    hits = index.search(queries, k=40, formula="query")
    assert {hit.metadata["formula"] for hit in hits[0]} == {"C6H5NO2"}
    assert hits.num_candidates.tolist() == [3, 1, 0, 0, 0]
    assert hits[0][0].adduct == "[M+H]+"
    assert hits[0][0].mass_error_ppm == pytest.approx(0.0, abs=1.0)
    assert [hit.metadata["smiles"] for hit in hits[1]] == [CHOLINE]  # a charge is no matter of the formula
    assert (hits[1][0].adduct, hits[1][0].mass_error_ppm) == (None, None)
    assert hits.notes == (
        "",
        "",
        "the query's formula is unknown",
        "the query's formula 'no formula' cannot be read",
        "no structure of the formula C99H2",
    )
    given = index.search(queries, k=40, formula="C6H5NO2")
    assert given.num_candidates.tolist() == [3] * 5
    with pytest.raises(InputError, match="is no formula"):
        index.search(queries, formula="sugar")


def test_a_formula_finds_molecules_of_any_charge(tower):
    index = StructureIndex.build(tower, ["C[n+]1ccccc1", "C[CH]n1cccc1", "CO"])
    assert sorted(index.metadata["formula"].to_pylist()) == ["C6H8N", "C6H8N+", "CH4O"]
    [found] = index.search([query(94.0651)], formula="C6H8N")
    assert sorted(hit.metadata["charge"] for hit in found) == [0, 1]


def test_open_search_ranks_every_structure(index, tower):
    queries = [query(200.0, "[M+H]+"), query(300.0)]
    hits = index.search(queries, k=40, precursor_ppm=None)
    scores = tower.embed(queries) @ index.vectors.T
    for i in range(2):
        assert hits.rows[i, :25].tolist() == np.argsort(-scores[i]).tolist()
        assert (hits.rows[i, 25:] == -1).all()
    assert hits.num_candidates.tolist() == [25, 25]
    best = hits[0][0]
    mz = adduct_mz(best.metadata["mass"], normalise_adduct("[M+H]+"))
    assert best.mass_error_ppm == pytest.approx((200.0 - mz) / mz * 1e6)
    assert (hits[1][0].adduct, hits[1][0].mass_error_ppm) == (None, None)
    few = index.search(queries, k=2, precursor_ppm=None)
    np.testing.assert_array_equal(few.rows, hits.rows[:, :2])


def test_hits_do_not_depend_on_the_queries_beside_them(index):
    queries = [query(float(mass) + 1.007276, "[M+H]+") for mass in index.mass]
    for options in ({"precursor_ppm": 10.0}, {"precursor_ppm": None}, {"formula": "C6H13NO2"}):
        together = index.search(queries, k=7, **options)
        for i in (0, 12, 24):
            alone = index.search([queries[i]], k=7, **options)
            np.testing.assert_array_equal(alone.rows[0], together.rows[i])
            np.testing.assert_array_equal(alone.scores[0], together.scores[i])


def test_queries_may_come_from_a_file_as_it_is_read(index, tmp_path):
    path = tmp_path / "queries.mgf"
    path.write_text("BEGIN IONS\nTITLE=a\nPEPMASS=124.0393\nADDUCT=[M+H]+\n78.03 100\nEND IONS\n")
    [found] = index.search(ionbed.read(path))
    assert {hit.metadata["formula"] for hit in found} == {"C6H5NO2"}


def test_equal_scores_are_ranked_by_row():
    class Flat(TowerModel):
        def embed_molecules(self, smiles, *, workers=1, progress=False):
            return np.repeat(np.eye(1, self.dim, dtype=np.float32), len(smiles), axis=0)

    flat = StructureIndex.build(Flat(), SMILES)
    hits = flat.search([query(200.0, formula="C6H5NO2")], formula="query")
    assert [hit.row for hit in hits[0]] == sorted(hit.row for hit in hits[0])


def test_no_queries_give_no_hits_and_bad_queries_are_told(index):
    for options in ({}, {"precursor_ppm": None}, {"formula": "query"}):
        hits = index.search([], k=3, **options)
        assert hits.rows.shape == (0, 3)
        assert list(hits) == []
    empty = Spectrum("mute", 200.0, mz=np.empty(0, np.float32), intensity=np.empty(0, np.float32))
    with pytest.raises(InputError, match="query mute: has no peaks"):
        index.search([empty])
    for options, words in (({"k": 0}, "hits"), ({"precursor_ppm": 0.0}, "ppm"), ({"precursor_ppm": 1e6}, "ppm")):
        with pytest.raises(InputError, match=words):
            index.search([query(200.0)], **options)


def test_open_gives_back_what_was_saved_and_saves_the_same_bytes_again(index, saved, tower, tmp_path):
    opened = StructureIndex.open(saved, tower)
    np.testing.assert_array_equal(opened.vectors, index.vectors)
    assert not opened.vectors.flags.writeable
    assert opened.metadata.equals(index.metadata)
    assert opened.dropped.to_pylist() == index.dropped.to_pylist()
    queries = [query(float(mass) + 1.007276, "[M+H]+") for mass in index.mass]
    np.testing.assert_array_equal(opened.search(queries, 3).rows, index.search(queries, 3).rows)
    opened.verify()
    opened.save(tmp_path / "copy")
    StructureIndex.build(tower, ["not a molecule", *reversed((*SMILES, CHOLINE))]).save(tmp_path / "other-order")
    files = sorted(p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file())
    assert files == ["dropped.tsv", "manifest.json", "metadata.parquet", "model/config.json", "vectors.faiss"]
    for file in files:
        assert (saved / file).read_bytes() == (tmp_path / "copy" / file).read_bytes()
    assert (saved / "vectors.faiss").read_bytes() == (tmp_path / "other-order" / "vectors.faiss").read_bytes()
    assert pq.read_schema(saved / "metadata.parquet").equals(STRUCTURE_SCHEMA)


def test_info_and_manifest_say_what_it_is(saved, tower):
    manifest = json.loads((saved / "manifest.json").read_text())
    assert (manifest["command"], manifest["kind"]) == ("index build", "structures")
    assert manifest["model_hash"] == tower.model_hash()
    info = open_index(saved, tower).info()
    assert (info["kind"], info["structures"], info["charged"]) == ("structures", 25, 1)
    assert info["formulas"] == len(set(StructureIndex.open(saved).metadata["formula"].to_pylist()))
    assert (info["lowest_mass"], info["highest_mass"]) == pytest.approx((104.10754, 259.15723), abs=1e-4)


def test_either_kind_is_opened_and_the_wrong_one_told(saved, index, model, library, tower, tmp_path):
    Index.build(model, library).save(tmp_path / "spectra")
    assert isinstance(open_index(tmp_path / "spectra", model), Index)
    assert isinstance(open_index(saved, tower), StructureIndex)
    with pytest.raises(InputError, match=r"is an index of structures, not of spectra.*StructureIndex\.open"):
        Index.open(saved)
    with pytest.raises(InputError, match=r"is an index of spectra, not of structures.*Index\.open"):
        StructureIndex.open(tmp_path / "spectra")
    with pytest.raises(InputError, match="no such folder"):
        open_index(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["vectors.faiss", "metadata.parquet", "dropped.tsv", "model/config.json"])
def test_a_file_that_is_missing_short_or_changed_is_told(saved, tower, name):
    path, original = saved / name, (saved / name).read_bytes()
    for content, words in (
        (original[:-1], "bytes"),
        (original[:-1] + bytes([original[-1] ^ 1]), "checksum"),
        (None, "missing"),
    ):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            StructureIndex.open(saved, tower)


def test_a_large_table_that_was_changed_is_told_when_it_is_read(saved, tower, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.index_folder.SMALL_FILE", 0)  # no checksum of a whole file is compared
    path = saved / "metadata.parquet"
    whole, names = path.read_bytes(), pq.ParquetFile(path).schema.names
    for name, read in (("mass", lambda index: None), ("name", lambda index: index.metadata)):
        pages = pq.ParquetFile(path).metadata.row_group(0).column(names.index(name))
        changed = bytearray(whole)
        changed[pages.data_page_offset + pages.total_compressed_size // 2] ^= 1
        path.write_bytes(changed)
        with pytest.raises(InputError, match="is damaged"):
            read(StructureIndex.open(saved, tower))
        path.write_bytes(whole)


def rewrite(saved, name, content: bytes) -> None:
    """Change a file so that the manifest agrees with it."""
    import hashlib

    (saved / name).write_bytes(content)
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (saved / "manifest.json").write_text(json.dumps(manifest))


def test_contents_that_make_no_index_are_told(saved, tower, tmp_path):
    shutil.copytree(saved, tmp_path / "b")
    shutil.copytree(saved, tmp_path / "c")
    rewrite(saved, "metadata.parquet", b"PAR1 no table PAR1")
    with pytest.raises(InputError, match="is damaged"):
        StructureIndex.open(saved, tower)
    rewrite(tmp_path / "b", "vectors.faiss", b"no vectors")
    with pytest.raises(InputError, match="is damaged"):
        StructureIndex.open(tmp_path / "b", tower)
    table = pq.read_table(tmp_path / "c" / "metadata.parquet").slice(1)
    pq.write_table(table, tmp_path / "short.parquet")
    rewrite(tmp_path / "c", "metadata.parquet", (tmp_path / "short.parquet").read_bytes())
    with pytest.raises(InputError, match="differ in number"):
        StructureIndex.open(tmp_path / "c", tower)


def test_another_model_or_one_without_structures_is_refused(saved):
    with pytest.raises(InputError, match=TowerModel(seed=1).model_hash()[:12]):
        StructureIndex.open(saved, TowerModel(seed=1))

    def unread():
        raise AssertionError("the structures were read before the model was asked")
        yield

    with pytest.raises(InputError, match="was not trained with structures"):
        StructureIndex.build(NoTowerModel(), unread())


def test_build_reads_a_file_and_its_counts_add_up(tower, tmp_path):
    path = tmp_path / "molecules.tsv"
    path.write_text("id\tname\tsmiles\nA\tone\tCO\nB\ttwo\tOC\nC\tthree\tC1CC\nD\tfour\tCCO\n")
    index = build(path, tmp_path / "index", tower)
    assert index.metadata.select(["id", "name"]).to_pylist() == [
        {"id": "A; B", "name": "one; two"},
        {"id": "D", "name": "four"},
    ]
    assert index.manifest["counts"] == {"read": 4, "kept": 2, "merged": 1, "dropped": {"unreadable": 1}}
    assert index.manifest["inputs"][0]["bytes"] == path.stat().st_size
    assert (tmp_path / "index" / "dropped.tsv").read_text() == (
        "position\tid\tname\tsmiles\treason\n4\tC\tthree\tC1CC\tunreadable\n"
    )
    with pytest.raises(InputError, match="--overwrite"):
        build(path, tmp_path / "index", tower)
    with pytest.raises(InputError, match="is the input itself"):
        build(path, path, tower)
    bad = tmp_path / "bad.tsv"
    bad.write_text("smiles\nC1CC\n")
    with pytest.raises(InputError, match=r"bad\.tsv: no structure to index"):
        build(bad, tmp_path / "other", tower)
    with pytest.raises(InputError, match="not trained"):
        build(path, tmp_path / "other", NoTowerModel())
    assert not (tmp_path / "other").exists()


def test_a_failed_save_leaves_nothing(index, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(TowerModel, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space"):
        index.save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_what_was_open_goes_on_when_another_index_takes_its_place(tower, tmp_path):
    StructureIndex.build(tower, ["CCO", "CCN"]).save(tmp_path / "index")
    opened = StructureIndex.open(tmp_path / "index", tower)
    StructureIndex.build(tower, ["CCC", "CCS"]).save(tmp_path / "index", overwrite=True)
    assert set(opened.metadata["smiles"].to_pylist()) == {"CCO", "CCN"}
    assert set(StructureIndex.open(tmp_path / "index", tower).metadata["smiles"].to_pylist()) == {"CCC", "CCS"}
