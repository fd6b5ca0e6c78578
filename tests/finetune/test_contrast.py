"""Losses against plain loops, batches with what they promise, augmentation, and gradients across processes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import ionbed
from ionbed.configs.loading import load_config
from ionbed.finetune.config import (
    AugmentationConfig,
    FinetuneConfig,
    InitConfig,
    LossConfig,
    MoleculesConfig,
    SamplingConfig,
)
from ionbed.finetune.losses import structure_loss
from ionbed.finetune.objective import term_weights
from ionbed.finetune.sampling import MoleculeBatches, numbered_molecules
from ionbed.pretrain.augmentation import augment
from ionbed.pretrain.contrast import contrastive_loss
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.molecules import morgan_fingerprints, tanimoto_matrix
from ionbed.spectra.spectrum import Spectrum


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(9, 4, generator=generator), dim=1)
    label = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3])
    same = label[:, None] == label
    return vectors @ vectors.T, same & ~torch.eye(9, dtype=torch.bool), ~same


def test_contrastive_loss_is_its_definition(batch):
    similarity, positive, other = batch
    window = other.clone()
    window[:, ::2] = False
    for allowed in (other, window):
        expected = 0.0
        for i in range(9):
            positives = [j for j in range(9) if positive[i, j]]
            pool = positives + [j for j in range(9) if allowed[i, j]]
            if not positives or len(pool) == len(positives):
                continue
            total = math.log(sum(math.exp(similarity[i, j].item() / 0.1) for j in pool))
            expected -= sum(similarity[i, j].item() / 0.1 - total for j in positives) / len(positives)
        assert contrastive_loss(similarity, positive, allowed, 0.1).item() == pytest.approx(expected, rel=1e-5)


def test_structure_loss_is_least_where_the_order_is_that_of_structures(batch):
    _, _, other = batch
    tanimoto = torch.rand(9, 9, generator=torch.Generator().manual_seed(1))
    matching = structure_loss(tanimoto, tanimoto, other, 0.1, 0.1)
    entropy = 0.0
    for i in range(9):
        target = (tanimoto[i, other[i]] / 0.1).softmax(0)
        entropy -= (target * target.log()).sum().item()
    assert matching.item() == pytest.approx(entropy, rel=1e-5)  # a cross-entropy is at least the entropy
    assert structure_loss(-tanimoto, tanimoto, other, 0.1, 0.1) > matching


def test_losses_without_a_usable_anchor_are_zero_with_a_gradient():
    similarity = torch.eye(3, requires_grad=True)
    none = torch.zeros(3, 3, dtype=torch.bool)
    loss = contrastive_loss(similarity, none, none, 0.1) + structure_loss(similarity, similarity, none, 0.1, 0.1)
    loss.backward()
    assert loss.item() == 0 and torch.equal(similarity.grad, torch.zeros(3, 3))


@pytest.fixture(scope="module")
def sampler(make_columns):
    columns, inchikey, smiles = make_columns
    molecule, structures = numbered_molecules(inchikey, smiles)
    fingerprints = morgan_fingerprints(list(structures.values()))
    config = SamplingConfig(anchors=6, spectra_per_molecule=4, negatives_per_anchor=2, analogues_per_anchor=1)
    batches = MoleculeBatches(
        np.arange(len(molecule)), molecule, columns.precursor_mz, columns.polarity, fingerprints, config
    )
    return batches, molecule, columns, fingerprints


def test_batches_have_positives_isobars_and_analogues(sampler):
    batches, molecule, columns, fingerprints = sampler
    epoch = batches.epoch(0, 0)
    assert len(epoch) == 4  # 24 molecules, 6 anchors each
    similarity = tanimoto_matrix(fingerprints, fingerprints)
    np.fill_diagonal(similarity, -1)
    for rows in epoch:
        assert len(np.unique(rows)) == len(rows)
        numbers, counts = np.unique(molecule[rows], return_counts=True)
        assert (counts >= 4).sum() >= 6
        assert set(numbers) & set(similarity[numbers].argmax(1))
    mass = np.array([columns.precursor_mz[molecule == i][0] for i in range(24)])
    isobars = {i for i in range(24) if (np.abs(mass - mass[i]) < 1e-6).sum() > 1}
    assert len(isobars) >= 5  # (iso)leucine, the pyridinecarboxylic acids
    together = [i for rows in epoch for i in isobars if i in molecule[rows]]
    assert len(together) > len(isobars)  # drawn as negatives as well as as anchors
    assert all(np.array_equal(a, b) for a, b in zip(epoch, batches.epoch(0, 0), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(epoch, batches.epoch(0, 1), strict=True))


def test_too_few_molecules_are_refused(sampler):
    _, molecule, columns, fingerprints = sampler
    config, rows = SamplingConfig(anchors=25), np.arange(len(molecule))
    with pytest.raises(ionbed.InputError, match="only 24 molecules"):
        MoleculeBatches(rows, molecule, columns.precursor_mz, columns.polarity, fingerprints, config)


def test_augmentation_drops_precursors_and_peaks_and_moves_mz():
    mz, intensity = np.array([100, 200, 299.8, 300.5, 301.0], np.float32), np.array([0.5, 0.2, 1, 0.1, 0.1], np.float32)
    spectra = [Spectrum(spectrum_id=str(i), precursor_mz=300.0, mz=mz, intensity=intensity) for i in range(2000)]
    spectra.append(dataclasses.replace(spectra[0], mz=mz[2:3], intensity=intensity[2:3]))
    columns, rows = SpectrumColumns.from_spectra(spectra), np.arange(2001)
    config = AugmentationConfig(drop_precursor_peak=0.5, drop_peaks=0.0, mz_jitter_ppm=0.0)
    changed = augment(columns, rows, config, 0, 0)
    counts = changed.num_peaks[:-1]
    assert set(counts.tolist()) == {2, 5} and abs((counts == 2).mean() - 0.5) < 0.05
    assert changed.num_peaks[-1] == 1  # never all of them
    assert all(changed.intensity[a:b].max() == 1 for a, b in zip(changed.offsets, changed.offsets[1:], strict=False))
    part = augment(columns.take(np.array([5, 9])), np.array([5, 9]), config, 0, 0)
    assert part.num_peaks.tolist() == changed.num_peaks[[5, 9]].tolist()
    jittered = augment(columns, rows, AugmentationConfig(0.0, 0.0, 3.0), 0, 0)
    error = (jittered.mz.astype(float) - columns.mz) / columns.mz * 1e6
    assert 3.8 < error.std() < 4.7  # a shift of the spectrum and noise of each peak, 3 ppm each
    thinned = augment(columns, rows, AugmentationConfig(0.0, 0.2, 0.0), 0, 0)
    assert abs(1 - len(thinned.mz) / len(columns.mz) - 0.2) < 0.02


def test_fragments_above_a_multiply_charged_precursor_stay():
    mz = np.array([100, 300, 301.9, 302.1, 303.9, 304.1, 450], np.float32)
    intensity = np.ones(len(mz), np.float32)
    spectra = [Spectrum(spectrum_id=str(z), precursor_mz=300.0, mz=mz, intensity=intensity, charge=z)
               for z in (None, 1, -1, 2, -2)]  # fmt: skip
    config = AugmentationConfig(drop_precursor_peak=1.0, drop_peaks=0.0, mz_jitter_ppm=0.0)
    changed = augment(SpectrumColumns.from_spectra(spectra), np.arange(5), config, 0, 0)
    assert changed.num_peaks.tolist() == [3, 3, 3, 5, 5]
    assert changed.mz[-5:].tolist() == mz[[0, 3, 4, 5, 6]].tolist()


def test_impossible_options_are_refused():
    for make in (
        lambda: SamplingConfig(window_ppm=math.nan),
        lambda: SamplingConfig(negatives_per_anchor=-1),
        lambda: SamplingConfig(analogues_per_anchor=-1),
        lambda: AugmentationConfig(drop_precursor_peak=1.5),
        lambda: AugmentationConfig(drop_peaks=-0.1),
        lambda: AugmentationConfig(mz_jitter_ppm=-1),
        lambda: AugmentationConfig(metadata_dropout=math.nan),
        lambda: InitConfig(embedding_dim=0),
        lambda: InitConfig(dropout=1.0),
        lambda: LossConfig(window=-1),
        lambda: LossConfig(temperature=0.005),
        lambda: LossConfig(temperature=1.5),
        lambda: LossConfig(structure_temperature=0),
        lambda: SamplingConfig(anchors=1),
        lambda: SamplingConfig(spectra_per_molecule=1),
        lambda: LossConfig(fingerprint=-1),
        lambda: LossConfig(temperature=0),
        lambda: SamplingConfig(formula_negatives_per_anchor=-1),
        lambda: MoleculesConfig(weight=-1),
        lambda: MoleculesConfig(width=0),
        lambda: MoleculesConfig(isobars=-1),
        lambda: MoleculesConfig(structures=-1),
        lambda: MoleculesConfig(temperature=2),
        lambda: MoleculesConfig(pool=Path("hmdb.tsv"), pool_share=1.5),
        lambda: MoleculesConfig(pool_share=0.5),
    ):
        with pytest.raises(ValueError):
            make()


@pytest.mark.parametrize(
    "on", ["loss.contrast", "loss.window", "loss.structure", "loss.fingerprint", "molecules.weight"]
)
def test_any_one_term_will_do_but_not_none(on):
    off = ["loss.contrast=0", "loss.window=0", "loss.structure=0"]
    with pytest.raises(ionbed.InputError, match="must not all be 0"):
        load_config(FinetuneConfig, "finetune-tiny", off)
    assert set(term_weights(load_config(FinetuneConfig, "finetune-tiny", [*off, f"{on}=2"])).values()) <= {1.0, 2.0}


GATHER = """
import sys, torch, torch.distributed as dist
from ionbed.finetune.losses import gather_embeddings, gather_two
from ionbed.pretrain.contrast import contrastive_loss
from ionbed.pretrain.ending import end_process

dist.init_process_group("gloo")
rank, sizes = dist.get_rank(), [4, 3]
everything = torch.nn.functional.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)
label = torch.tensor([0, 1, 0, 2, 1, 0, 2])
start, stop = sum(sizes[:rank]), sum(sizes[: rank + 1])

def loss(own, rows, sizes):
    similarity = own @ gather_embeddings(own, sizes).T
    same = label[rows][:, None] == label
    return contrastive_loss(similarity, same & (rows[:, None] != torch.arange(7)), ~same, 0.1)

alone = everything.clone().requires_grad_()
loss(alone, torch.arange(7), [7]).backward()
own = everything[start:stop].clone().requires_grad_()
loss(own, torch.arange(start, stop), sizes).backward()
torch.testing.assert_close(own.grad, alone.grad[start:stop])

others = torch.nn.functional.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)), dim=1)
first, last = [(0, 3), (3, 3)][rank]  # the second process has none
both = [everything.clone().requires_grad_(), others.clone().requires_grad_()]
mine = [everything[start:stop].clone().requires_grad_(), others[first:last].clone().requires_grad_()]

def loss_of_two(a, b, rows, sizes, other_sizes):
    all_a, all_b = gather_two(a, b, sizes, other_sizes)
    similarity = torch.cat([a @ all_b.T, a @ all_a.T], dim=1)
    positive = label[rows][:, None] == torch.cat([torch.arange(3), label])
    return contrastive_loss(similarity, positive, ~positive, 0.1) + (b @ all_a.T).square().sum()

loss_of_two(*both, torch.arange(7), [7], [3]).backward()
loss_of_two(*mine, torch.arange(start, stop), sizes, [3, 0]).backward()
torch.testing.assert_close(mine[0].grad, both[0].grad[start:stop])
torch.testing.assert_close(mine[1].grad, both[1].grad[first:last])
dist.destroy_process_group()
end_process()
"""


def test_gradients_reach_the_negatives_of_other_processes(tmp_path, torchrun):
    script = tmp_path / "gather.py"
    script.write_text(GATHER)
    done = torchrun(script)
    assert done.returncode == 0, done.stderr


def test_the_window_of_a_spectrum_ends_at_ten_ppm(sampler):
    _, molecule, columns, fingerprints = sampler
    precursor_mz = columns.precursor_mz.astype(np.float64).copy()
    middle = 5
    precursor_mz[middle + 1 : middle + 5] = precursor_mz[middle] * (1 + np.array([9.9, 10.1, -9.9, -10.1]) * 1e-6)
    config = SamplingConfig(anchors=6, window_ppm=10)
    batches = MoleculeBatches(np.arange(len(molecule)), molecule, precursor_mz, columns.polarity, fingerprints, config)
    windows = {
        int(row): set(batches.rows[batches.window_start[place] : batches.window_stop[place]].tolist())
        for place, row in enumerate(batches.rows)
    }
    assert windows[middle] & set(range(middle, middle + 5)) == {middle, middle + 1, middle + 3}
    for row, window in windows.items():
        error = np.abs(np.log(precursor_mz / precursor_mz[row])) * 1e6
        assert window == set(np.flatnonzero(error <= 10).tolist())


def test_batches_are_of_one_polarity(sampler):
    _, molecule, columns, fingerprints = sampler
    polarity = np.where(np.arange(len(molecule)) % 3 == 0, -1, 1).astype(np.int8)
    config = SamplingConfig(anchors=8, spectra_per_molecule=4)
    batches = MoleculeBatches(
        np.arange(len(molecule)), molecule, columns.precursor_mz, polarity, fingerprints, config
    ).epoch(0, 0)
    assert len(batches) == 6 and {len(set(polarity[rows])) for rows in batches} == {1}
    assert {int(polarity[rows][0]) for rows in batches} == {1, -1}
