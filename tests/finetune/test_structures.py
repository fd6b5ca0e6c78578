"""Structures of a batch: which are drawn, what is never drawn, the terms of the loss, and memory against time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import ionbed
from ionbed.artifacts import sha256_of_file, write_manifest
from ionbed.configs.loading import load_config
from ionbed.embeddings.structure_rows import structure_rows
from ionbed.finetune.config import FinetuneConfig, MoleculesConfig, SamplingConfig
from ionbed.finetune.losses import fingerprint_loss
from ionbed.finetune.pool import Pool, read_pool
from ionbed.finetune.sampling import MoleculeBatches, condition_codes, numbered_molecules, spread
from ionbed.finetune.structures import StructureSampler, TrainingStructures, parents_of
from ionbed.finetune.task import RARE_BIT, ContrastiveTask
from ionbed.pretrain.data import TrainingSpectra
from ionbed.spectra.molecule_features import MoleculeFeatures, molecule_features
from ionbed.spectra.molecules import element_formula, morgan_fingerprints, standardise
from ionbed.spectra.split import Split
from ionbed.spectra.store import SHARD_NAME, Store, write_shard

# Isomers of C9H13N (amphetamine and others), the pyridinecarboxylic acids, and some that stand alone.
SMILES = [
    "CC(N)Cc1ccccc1", "NCCCc1ccccc1", "CNCCc1ccccc1", "OC(=O)c1cccnc1", "OC(=O)c1ccncc1", "OC(=O)c1ccccn1",
    "CCO", "CCCCCC", "c1ccccc1", "NCC(=O)O",
]  # fmt: skip
AMINES, ACIDS = {0, 1, 2}, {3, 4, 5}
POOL = ["CC(C)(N)c1ccccc1", "CN(C)Cc1ccccc1", "CCNCc1ccccc1", "CCCCO", "CC(=O)C"]


def pool_of(smiles: list[str]) -> Pool:
    keys = [standardise(text).inchikey[:14] for text in smiles]
    return Pool(np.array(keys), MoleculeFeatures.of(smiles))


def blocks_and(smiles: list[str]) -> dict[str, str]:
    return {standardise(text).inchikey[:14]: text for text in smiles}


def sampler(allowed: list[int], pool: Pool | None = None, **options: float) -> StructureSampler:
    structures = TrainingStructures.of(np.arange(len(SMILES)), parents_of(blocks_and(SMILES)), pool)
    config = MoleculesConfig(weight=1, pool=Path("unused"), **options)
    return StructureSampler(structures, np.array(allowed), 10, config, use_pool=pool is not None)


def drawn(source: StructureSampler, molecules: list[int], seed: int = 0) -> list[int]:
    return source.draw(np.array(molecules), np.random.default_rng(seed)).tolist()


def test_a_batch_has_its_own_structures_then_isobars_then_others():
    source = sampler(list(range(10)), isobars=2, structures=0)
    assert drawn(source, [3, 6])[:2] == [3, 6] and set(drawn(source, [3, 6])) == {6} | ACIDS
    assert {tuple(drawn(sampler(list(range(10)), isobars=1, structures=0), [3], seed)) for seed in range(20)} == {
        (3, 4),
        (3, 5),
    }
    filled = drawn(sampler(list(range(10)), isobars=0, structures=5), [0, 3])
    assert len(set(filled)) == len(filled) in (4, 5) and set(filled) > {0, 3}  # own ones may be drawn again
    assert drawn(source, [0, 3], 7) == drawn(source, [0, 3], 7)


def test_structures_of_other_folds_are_never_drawn():
    source = sampler([0, 1, 3, 6], isobars=5, structures=100)
    for seed in range(20):
        assert set(drawn(source, [0, 3], seed)) <= {0, 1, 3, 6}


def test_isobars_are_within_the_window_and_not_the_molecule_itself():
    source = sampler(list(range(10)))
    near = source.are_near(np.array([0, 3, 6]), np.arange(10))
    assert [set(np.flatnonzero(row).tolist()) for row in near] == [AMINES - {0}, ACIDS - {3}, set()]
    masses = [standardise(text).exact_mass for text in SMILES]
    np.testing.assert_allclose(source.structures.features.mass, masses, rtol=1e-9)


def test_the_pool_gives_its_share():
    pool = pool_of(POOL)
    for share, count in ((0.0, 0), (1.0, 3)):
        source = sampler(list(range(10)), pool, pool_share=share, isobars=3, structures=0)
        assert sum(number >= len(SMILES) for number in drawn(source, [0])) == count
    source = sampler(list(range(10)), pool, pool_share=0.5, isobars=2, structures=0)
    counts = [sum(number >= len(SMILES) for number in drawn(source, [0], seed)) for seed in range(10)]
    assert counts == [1] * 10
    assert {n - len(SMILES) for seed in range(10) for n in drawn(source, [0], seed) if n >= len(SMILES)} == {0, 1, 2}


def test_a_pool_is_read_once_and_says_what_it_left_out(tmp_path, caplog, monkeypatch):
    path = tmp_path / "pool.smi"
    path.write_text("CCO ethanol\nOCC again\nC[N+](C)(C)CCO.[Cl-] choline chloride\nC1CC broken\nCCC[NH3+] amine\n")
    with caplog.at_level("INFO", logger="ionbed"):
        pool = read_pool(path, tmp_path / "cache")
    assert "2 structures for the pool" in caplog.text
    for reason in ("unreadable: 1", "several parts: 1", "duplicate: 1"):
        assert reason in caplog.text
    np.testing.assert_array_equal(pool.features.dense(), molecule_features(["CCO", "CCCN"]))  # as an index keeps it
    monkeypatch.setattr("ionbed.finetune.pool.read_molecules", None)  # not read a second time
    again = read_pool(path, tmp_path / "cache")
    np.testing.assert_array_equal(again.features.dense(), pool.features.dense())
    assert again.blocks.tolist() == pool.blocks.tolist()
    monkeypatch.undo()
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert read_pool(path, tmp_path / "cache").blocks.tolist() == pool.blocks.tolist()
    assert "is damaged" in caplog.text
    left = pool.without({"LFQSCWFLJHTTHZ"})  # ethanol
    assert len(left.blocks) == 1
    np.testing.assert_array_equal(left.features.dense(), molecule_features(["CCCN"]))


def test_a_pool_without_a_use_is_refused(tmp_path):
    with pytest.raises(ionbed.InputError, match="no such file"):
        read_pool(tmp_path / "none.smi", tmp_path)
    (tmp_path / "salts.smi").write_text("[Na+].[Cl-] salt\n")
    with pytest.raises(ionbed.InputError, match="none of its 1 structures can be used"):
        read_pool(tmp_path / "salts.smi", tmp_path)


def write_store(folder: Path, table: pa.Table) -> None:
    folder.mkdir()
    path = folder / SHARD_NAME.format(0)
    write_shard(table, path)
    shard = {"file": path.name, "spectra": len(table), "sha256": sha256_of_file(path)}
    write_manifest(folder, {"command": "prepare", "counts": {}, "shards": [shard]})


def make_task(store: Path, split: Path, folder: Path, *changes: str, pool: Pool | None = None) -> ContrastiveTask:
    size = "init.random={hidden_size: 32, num_layers: 1, num_heads: 4, num_mz_wavelengths: 8}"
    paths = (f"data.store={store}", f"data.split={split}", f"output={folder}", "init.model=null")
    small = ("sampling.anchors=6", "init.embedding_dim=16", "molecules.width=16", "training.micro_batch_tokens=300")
    config = load_config(FinetuneConfig, "finetune-tiny", [size, *paths, *small, *changes])
    return ContrastiveTask(config, TrainingSpectra(config.data, folder / "columns"), pool)


@pytest.fixture(scope="module")
def task(store, split, tmp_path_factory) -> ContrastiveTask:
    changes = ("molecules.weight=2", "molecules.structures=15", "loss.fingerprint=0.5")
    return make_task(store, split, tmp_path_factory.mktemp("task"), *changes)


def test_the_terms_are_their_definition(task):
    rows = task.epoch_batches(0)[0]
    batch = task.micro_batches(rows, 0, 0, 1)[0]
    task.module.eval()
    with torch.no_grad():
        terms = task.module(batch)
        spectra = torch.cat([task.encoder.embed_batch(part) for part in batch.parts]).double()
        structures = task.encoder.molecule_tower(batch.structures.features_SF).double()
    # The parts hold the rows in another order: each spectrum is found by its precursor and its structure.
    own = batch.structures.own_AM.int().argmax(1)
    logits = spectra @ structures.T / 0.07
    mass = task.structures[False].structures.features.mass[drawn_numbers(task, rows)]
    forward = window = backward = 0.0
    in_window = with_spectra = 0
    for spectrum, structure in enumerate(own.tolist()):
        row = logits[spectrum]
        forward += (row.logsumexp(0) - row[structure]).item()
        near = [m for m in range(len(mass)) if abs(math.log(mass[m] / mass[structure])) <= 1e-5]
        if len(near) > 1:
            in_window += 1
            window += (row[near].logsumexp(0) - row[structure]).item()
    for structure in range(len(mass)):
        of = [spectrum for spectrum in range(len(own)) if own[spectrum] == structure]
        if of:
            with_spectra += 1
            column = logits[:, structure]
            backward += (column.logsumexp(0) - column[of].mean()).item()
    expected = {"spectrum_to_structure": (forward, len(own)), "structure_in_window": (window, in_window),
                "structure_to_spectrum": (backward, with_spectra)}  # fmt: skip
    assert in_window and with_spectra < len(mass)
    counts = task.counts(batch)
    for name, (total, count) in expected.items():
        assert terms[name].item() == pytest.approx(total, rel=1e-4) and counts[name] == count, name
    assert {name: task.weights[name] for name in expected} == {
        "spectrum_to_structure": 1, "structure_in_window": 2, "structure_to_spectrum": 1}  # fmt: skip


def drawn_numbers(task: ContrastiveTask, rows: np.ndarray) -> np.ndarray:
    """The numbers of the structures of a batch, found by their features."""
    features = task.micro_batches(rows, 0, 0, 1)[0].structures.features_SF.numpy()
    known = task.structures[False].structures.features.dense()
    return np.array([int(np.flatnonzero((known == row).all(1))[0]) for row in features])


def test_structures_are_divided_among_processes(task):
    rows = task.epoch_batches(0)[0]
    alone = task.micro_batches(rows, 0, 0, 1)[0].structures
    shares = [task.micro_batches(rows, 0, process, 3)[0].structures for process in range(3)]
    assert torch.equal(torch.cat([share.features_SF for share in shares]), alone.features_SF)
    assert [len(share.features_SF) for share in shares] == shares[0].sizes and sum(shares[0].sizes) == len(
        alone.features_SF
    )
    assert sum(int(share.own_AM.sum()) for share in shares) == len(rows)


def test_validation_compares_with_structures_of_its_fold_alone(task):
    rows = task.validation_batches()[0]
    molecules = np.unique(task.molecule[task.spectra.validation_rows])
    features = task.micro_batches(rows, 0, 0, 1)[0].structures.features_SF.numpy()
    allowed = task.structures[True].structures.features.dense(task.structures[True].structures.number_of[molecules])
    assert all((allowed == row).all(1).any() for row in features)


def test_what_the_store_or_the_split_knows_leaves_the_pool(store, split, tmp_path):
    inside = ["CC(=O)Nc1ccc(O)cc1", "CC(C)CC(N)C(=O)O"]  # of the store
    known = Split.load(split)
    listed = Split(known.kind, known.seed, {**known.folds, "IJDNQMDRQITEOD": "test"})  # butane
    listed.save(tmp_path / "split.json")
    changes = ("molecules.weight=1", "molecules.pool=unused", "molecules.pool_share=0.5")
    task = make_task(store, tmp_path / "split.json", tmp_path, *changes, pool=pool_of([*inside, "CCCC", "CCCCCC"]))
    structures = task.structures[False].structures
    assert len(structures) - structures.first_of_pool == 1
    np.testing.assert_array_equal(structures.features.dense([-1]), molecule_features(["CCCCCC"]))


def test_a_molecule_of_the_store_leaves_the_pool_without_its_smiles_too(task, monkeypatch):
    paracetamol = "RZVAJINKPMORJF"
    texts = zip(task.spectra.inchikey, task.spectra.smiles, strict=True)
    blank = np.array([None if (key or "").startswith(paracetamol) else text for key, text in texts], object)
    monkeypatch.setattr(TrainingSpectra, "smiles", blank)
    assert paracetamol not in numbered_molecules(task.spectra.inchikey, task.spectra.smiles)[1]
    monkeypatch.setattr(task.spectra, "split", None)
    assert len(task._unknown(pool_of(["CC(=O)Nc1ccc(O)cc1", "CCCCCC"]), set()).blocks) == 1
    with pytest.raises(ionbed.InputError, match=r"all of its 1 molecules.*pool_share to 0"):
        task._unknown(pool_of(["CC(=O)Nc1ccc(O)cc1"]), set())


SALT, BASE, CATION = "CC(N)Cc1ccccc1.Cl", "CC(N)Cc1ccccc1", "C[N+](C)(C)CC(=O)O"
BETAINE = "C[N+](C)(C)CC(=O)[O-]"


def test_structures_are_those_that_an_index_keeps():
    """A salt without its acid, betaine with its own charges; a salt and its base are one structure."""
    of_store = blocks_and([SALT, CATION, BASE, "CCO"])
    assert len(of_store) == 4
    parents = parents_of(of_store)
    assert [text for _, text in parents] == [BASE, BETAINE, BASE, "CCO"]
    rows, _, _ = structure_rows(of_store.values())
    assert sorted({text for _, text in parents}) == sorted(rows["smiles"].to_pylist())
    structures = TrainingStructures.of(np.arange(4), parents, pool_of(["CCCCO"]))
    assert structures.number_of.tolist() == [0, 1, 0, 2] and structures.first_of_pool == 3
    np.testing.assert_array_equal(structures.features.dense(), molecule_features([BASE, BETAINE, "CCO", "CCCCO"]))
    source = StructureSampler(structures, np.arange(4), 10, MoleculesConfig(weight=1, structures=9), use_pool=False)
    assert sorted(drawn(source, [0, 2])) == [0, 1, 2] and drawn(source, [0, 2])[0] == 0
    assert not source.are_near(np.array([0]), np.array([0])).any()


def test_the_parent_of_a_salt_in_the_store_leaves_the_pool(store, split, tmp_path):
    """Else the structure of a held-out molecule would be a negative, under the block that it has without its salt."""
    table = Store(store).table()
    salt = standardise(SALT)
    smiles, inchikey = (table[name].to_pylist() for name in ("smiles", "inchikey"))
    for row in range(6):
        smiles[row], inchikey[row] = salt.smiles, salt.inchikey
    for name, values in (("smiles", smiles), ("inchikey", inchikey)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    rows = [row for row in range(len(table)) if smiles[row] != BASE]
    write_store(tmp_path / "salt", table.take(rows))
    folds = dict(Split.load(split).folds)
    del folds[standardise(BASE).inchikey[:14]]
    Split("inchikey-block", 1, {**folds, salt.inchikey[:14]: "test"}).save(tmp_path / "split.json")
    changes = ("molecules.weight=1", "molecules.pool=unused", "molecules.pool_share=0.5")
    task = make_task(tmp_path / "salt", tmp_path / "split.json", tmp_path, *changes, pool=pool_of([BASE, "CCCCCC"]))
    structures = task.structures[False].structures
    np.testing.assert_array_equal(
        structures.features.dense(np.arange(structures.first_of_pool, len(structures))), molecule_features(["CCCCCC"])
    )


def test_predicted_bits_are_those_that_tell_molecules_apart(task):
    trained = np.unique(task.molecule[task.rows])
    share = task.fingerprints[trained].mean(0)
    assert set(task.predicted_bits) == set(np.flatnonzero((share >= RARE_BIT) & (share <= 1 - RARE_BIT)))
    rows = task.epoch_batches(0)[0]
    batch = task.micro_batches(rows, 0, 0, 1)[0]
    own = task.molecule[np.isin(np.arange(len(task.molecule)), rows)]
    expected = task.fingerprints[own][:, task.predicted_bits].sum()
    assert batch.fingerprint_AK.sum() == expected > 0
    logits, bits = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([[True, False], [False, True]])
    by_hand = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log(2), math.log1p(math.exp(-3))]
    assert fingerprint_loss(logits, bits).item() == pytest.approx(sum(by_hand) / 2)


def gradients(task: ContrastiveTask, *, recompute: bool) -> tuple[list[torch.Tensor], int]:
    """Gradients of a step with dropout, and how many parts were computed."""
    batch = task.micro_batches(task.epoch_batches(0)[0], 0, 0, 1)[0]
    assert len(batch.parts) > 2
    calls = []
    handle = task.encoder.norm.register_forward_hook(lambda *_: calls.append(1))
    task.module.train()
    task.module.zero_grad()
    task.module.recompute = recompute
    torch.manual_seed(5)
    sum(task.module(batch).values()).backward()
    handle.remove()
    found = [p.grad.clone() for p in task.module.parameters() if p.grad is not None]
    return found, len(calls) // len(batch.parts)


def test_computing_activations_again_changes_no_gradient(store, split, tmp_path):
    task = make_task(store, split, tmp_path, "molecules.weight=1", "init.dropout=0.3", "training.micro_batch_tokens=80")
    (kept, once), (again, twice) = (gradients(task, recompute=recompute) for recompute in (False, True))
    assert (once, twice) == (1, 2)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in kept)


def test_spectra_of_differing_conditions_come_first():
    nan = math.nan
    made = [("A", "QTOF", 20), ("A", "QTOF", 21), ("A", "QTOF", 45), ("A", "Orbitrap", 20), ("B", "QTOF", 20),
            ("B", "QTOF", nan), (None, None, nan)]  # fmt: skip
    columns = list(zip(*made, strict=True))
    codes = condition_codes(np.array(columns[0], object), np.array(columns[1], object), np.array(columns[2], float))
    assert codes[0].tolist() == codes[1].tolist() and codes[0, 1] == codes[2, 1] and codes[0, 2] != codes[2, 2]
    assert codes[0, 0] != codes[4, 0] and codes[0, 1] != codes[4, 1]  # one instrument type, in two laboratories
    assert spread(codes).tolist() == [0, 4, 6, 3, 5, 2, 1]
    assert spread(codes[:0]).tolist() == []


def test_conditions_differ_within_a_batch(store, split, tmp_path):
    """A molecule of the store has two spectra at each of three energies, one per laboratory."""
    changes = ("sampling.spread_conditions=true", "sampling.negatives_per_anchor=0", "sampling.analogues_per_anchor=0",
               "sampling.spectra_per_molecule=2")  # fmt: skip
    task = make_task(store, split, tmp_path, *changes)
    laboratory = task.conditions[:, 0]
    rows = np.concatenate([rows for epoch in range(3) for rows in task.epoch_batches(epoch)])
    pairs = [laboratory[rows[i : i + 2]] for i in range(0, len(rows), 2)]
    assert len(pairs) > 30 and all(a != b for a, b in pairs)


def test_isomers_come_along_whatever_their_adduct(make_columns):
    columns, inchikey, smiles = make_columns
    molecule, structures = numbered_molecules(inchikey, smiles)
    texts = list(structures.values())
    formula = np.array([element_formula(text) for text in texts], object)
    precursor_mz = columns.precursor_mz * (1 + np.arange(len(molecule)) * 1e-3)  # no two in a window
    config = SamplingConfig(anchors=2, negatives_per_anchor=3, analogues_per_anchor=0, formula_negatives_per_anchor=2)
    fingerprints = morgan_fingerprints(texts)
    batches = MoleculeBatches(
        np.arange(len(molecule)), molecule, precursor_mz, columns.polarity, fingerprints, config, formula=formula
    )
    acids = np.flatnonzero(formula == "C6H5NO2")
    assert len(acids) == 3
    for rows in batches.epoch(0, 0):
        present = np.unique(molecule[rows])
        if np.isin(acids, present).any():
            assert np.isin(acids, present).all()
    without = MoleculeBatches(
        np.arange(len(molecule)), molecule, precursor_mz, columns.polarity, fingerprints,
        SamplingConfig(anchors=2, negatives_per_anchor=3, analogues_per_anchor=0), formula=formula,
    )  # fmt: skip
    assert any(0 < np.isin(acids, molecule[rows]).sum() < 3 for rows in without.epoch(0, 0))
