"""Candidate structures: the store's own numbers, each molecule once, one style of SMILES, and the cache."""

from __future__ import annotations

import gzip
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from ionbed.embeddings.structure_rows import structure_rows
from ionbed.errors import InputError
from ionbed.evaluation import structure_cache as module
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.dataset import load_evaluation_data
from ionbed.evaluation.retrieval import plain_formula
from ionbed.spectra.molecules import morgan_fingerprints, standardise
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store

DATA = os.environ.get("IONBED_DATA", "")
ALANINE, ISOMER = "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"


def inchikey(smiles: str) -> str:
    molecule = standardise(smiles)
    assert molecule is not None
    return molecule.inchikey


@pytest.fixture
def data(build, make_data):
    """Makes, in a folder, two molecules with InChIKeys of their own and one whose structure RDKit cannot read."""
    smiles = {0: ALANINE, 1: "OCC", 2: "not a structure"}
    keys = {0: inchikey(ALANINE), 1: inchikey("CCO"), 2: f"{'Z' * 14}-UHFFFAOYSA-N"}
    spectra = [
        build.spectrum(molecule, number, smiles=smiles[molecule], inchikey=keys[molecule])
        for molecule, number in ((1, 0), (0, 0), (2, 0), (1, 1))
    ]
    folds = {keys[molecule][:14]: "test" for molecule in keys}
    return lambda folder: load_evaluation_data(
        Store(build.write_store(folder / "data", spectra)), Split("inchikey-block", 0, folds)
    )


def test_molecules_of_the_store_keep_their_numbers_and_lose_their_style(data, tmp_path):
    data = data(tmp_path)
    found = candidate_molecules(data)
    assert found.block.tolist() == data.inchikey_block.tolist()
    of = {smiles: row for row, smiles in enumerate(data.smiles)}
    alanine, ethanol, unknown = of[ALANINE], of["OCC"], of["not a structure"]
    assert found.smiles[alanine] == "CC(N)C(=O)O" and found.smiles[ethanol] == "CCO" and found.smiles[unknown] == ""
    assert found.exact_mass[alanine] == pytest.approx(89.04768, abs=1e-4)
    assert np.isnan(found.exact_mass[unknown]) and found.formula[unknown] == "" and not found.fingerprint[unknown].any()
    assert found.formula[ethanol] == "C2H6O"
    assert np.array_equal(np.unpackbits(found.fingerprint[ethanol]), morgan_fingerprints(["CCO"])[0])
    assert [found.place[row] for row in (ethanol, alanine, unknown)] == [0, 1, 2]  # of the first spectra in the store
    assert found.source_names == ("store",) and not found.source.any() and found.counts == {}


def test_a_pool_adds_only_what_is_new_by_block_and_by_structure(data, tmp_path):
    data = data(tmp_path)
    pool = tmp_path / "pool.tsv"
    pool.write_text(f"id\tsmiles\n1\t{ISOMER}\n2\tCCCO\n3\tC(O)CC\n4\tC((\n5\tCC(C)O\n")
    found = candidate_molecules(data, [pool])
    assert found.smiles[3:].tolist() == ["CCCO", "CC(C)O"]
    assert found.block[3:].tolist() == [inchikey("CCCO")[:14], inchikey("CC(C)O")[:14]]
    assert found.source.tolist() == [0, 0, 0, 1, 1] and found.place[3:].tolist() == [1, 4]
    assert found.source_names == ("store", "pool.tsv")
    assert found.counts == {"entries that RDKit cannot read": 1, "entries that were there before": 2}
    assert len(set(found.block)) == len(found)


def test_a_structure_is_the_same_candidate_whatever_the_store_calls_it(build, make_data, tmp_path):
    """The blocks of a store are as it states them; its structure in a pool must not stand beside it under its own."""
    data = make_data([build.spectrum(0, 0, smiles=ALANINE)], {0: "test"})
    (tmp_path / "pool.smi").write_text(f"{ISOMER} other\nCCO ethanol\n")
    assert candidate_molecules(data, [tmp_path / "pool.smi"]).smiles.tolist() == ["CC(N)C(=O)O", "CCO"]


def test_a_molecule_and_its_ion_are_one_candidate(build, make_data, tmp_path):
    """Their structures differ, and the first blocks of their InChIKeys do not: protons are told in the last letter."""
    data = make_data([build.spectrum(0, 0, smiles="CCO")], {0: "test"})
    (tmp_path / "pool.smi").write_text("CCCN amine\nCCC[NH3+] ion\n")
    assert candidate_molecules(data, [tmp_path / "pool.smi"]).smiles.tolist() == ["CCO", "CCCN"]


def test_structures_are_those_that_an_index_keeps_and_masses_those_that_adducts_count_from(build, make_data, tmp_path):
    """A salt of a pool is its base, in the store already; betaine's cation has the mass of its ``[M]+``."""
    salt, base, cation, betaine = "CC(N)CO.Cl", "CC(N)CO", "C[N+](C)(C)CC(=O)O", "C[N+](C)(C)CC(=O)[O-]"
    data = make_data([build.spectrum(0, 0, smiles=cation), build.spectrum(1, 1, smiles=base)], {0: "test", 1: "test"})
    (tmp_path / "pool.smi").write_text(f"{salt} salt\n{betaine} inner salt\nCCO.Cl.O other\n")
    found = candidate_molecules(data, [tmp_path / "pool.smi"])
    kept, _, _ = structure_rows([cation, base, "CCO"])
    assert set(found.smiles) == set(kept["smiles"].to_pylist()) == {betaine, base, "CCO"}
    assert found.counts["entries that were there before"] == 2
    of = {smiles: row for row, smiles in enumerate(found.smiles)}
    assert found.exact_mass[of[betaine]] == pytest.approx(118.08680, abs=1e-4)
    assert found.formula[of[betaine]] == "C5H12NO2+" and found.formula[of["CCO"]] == "C2H6O"
    assert np.array_equal(np.unpackbits(found.fingerprint[of[betaine]]), morgan_fingerprints([betaine])[0])


def test_isotopes_and_their_masses_are_those_of_the_common_molecule(build, make_data):
    data = make_data([build.spectrum(0, 0, smiles="[2H]C([2H])([2H])C[18OH]")], {0: "test"})
    found = candidate_molecules(data)
    assert found.smiles[0] == "CCO" and found.exact_mass[0] == pytest.approx(46.04186, abs=1e-4)


def test_the_cache_answers_for_the_same_structures_and_for_no_others(data, tmp_path, monkeypatch, caplog):
    data = data(tmp_path)
    pool, cache = tmp_path / "pool.smi", tmp_path / "cache"
    pool.write_text("CCCO a\nCCCCO b\n")
    first = candidate_molecules(data, [pool], cache)
    assert len(list(cache.glob("structures-*.parquet"))) == 2

    def refuse(structure: str) -> None:
        raise AssertionError(f"{structure} was worked out again")

    describe = module._describe
    monkeypatch.setattr(module, "_describe", refuse)
    again = candidate_molecules(data, [pool], cache)
    for name in ("block", "smiles", "exact_mass", "formula", "source", "place", "fingerprint"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    pool.write_text("CCCO a\nCCCCCO b\n")
    with pytest.raises(AssertionError, match="worked out again"):
        candidate_molecules(data, [pool], cache)

    monkeypatch.setattr(module, "_describe", describe)
    pool.write_text("CCCO a\nCCCCO b\n")
    for file in cache.glob("structures-*.parquet"):
        file.write_bytes(file.read_bytes()[:-20])
    mended = candidate_molecules(data, [pool], cache)
    np.testing.assert_array_equal(first.fingerprint, mended.fingerprint)
    assert "is made anew" in caplog.text


def test_processes_give_what_one_gives(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PER_TASK", 3)
    monkeypatch.setattr(module, "_WORTH_PROCESSES", 5)
    structures = [f"{'C' * n}O" for n in range(1, 9)] + ["C(("]
    one = module.structures_of(structures, None, label="", workers=1)
    two = module.structures_of(structures, None, label="", workers=2)
    assert one.equals(two) and one["block"].null_count == 1


def test_a_gzipped_pool_is_read_and_a_damaged_one_refused(data, tmp_path):
    data = data(tmp_path)
    pool = tmp_path / "pool.TSV.gz"
    pool.write_bytes(gzip.compress(b"X1\tpropanol\tCCCO\nX2\tbutanol\tCCCCO\n"))
    assert candidate_molecules(data, [pool]).smiles[3:].tolist() == ["CCCO", "CCCCO"]
    pool.write_bytes(pool.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged gzip"):
        candidate_molecules(data, [pool])


def test_a_cache_that_cannot_be_written_is_a_clear_error(data, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot be used as a cache"):
        candidate_molecules(data(tmp_path), [], tmp_path / "taken")


@pytest.mark.skipif(not DATA, reason="IONBED_DATA does not name the folder of real data")
def test_real_structures_have_the_blocks_and_the_formulas_that_their_database_states():
    """Of 250 metabolites, spread over the file; where they differ the database has a salt or another tautomer."""
    with gzip.open(Path(DATA) / "hmdb-structures.tsv.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in islice(lines, 0, 100_000, 400)]
    table = module.structures_of([row[2] for row in rows], None, label="", workers=1)
    blocks, formulas = table["block"].to_pylist(), table["formula"].to_pylist()
    stated = [standardise(row[3]) for row in rows]
    assert len(rows) == 250 and blocks.count(None) == 0
    num_same_block = sum(a == b.inchikey[:14] for a, b in zip(blocks, stated, strict=True) if b is not None)
    num_same_formula = sum(
        plain_formula(a) == plain_formula(b.formula) for a, b in zip(formulas, stated, strict=True) if b
    )
    assert num_same_block >= 247 and num_same_formula >= 247, (num_same_block, num_same_formula)
    flat = module.structures_of(table["smiles"].to_pylist(), None, label="", workers=1)
    assert flat["smiles"].equals(table["smiles"]), "what is written once is written so again"
    assert flat["fingerprint"].equals(table["fingerprint"])
