"""Audits of split and corpora: planted copies and structures are found, and clean ones pass on ten seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ionbed.errors import InputError
from ionbed.evaluation.audits.corpora import corpus_overlap
from ionbed.evaluation.audits.findings import (
    CORPUS_SPECTRA,
    CORPUS_STRUCTURES,
    SHARED_FOLDS,
    SHARED_SPECTRA,
    UNLABELLED_SPECTRA,
    Finding,
    sign_test_p,
)
from ionbed.evaluation.audits.folds import split_findings
from ionbed.evaluation.dataset import EvaluationData, load_evaluation_data
from ionbed.finetune.split_audit import AUDIT_COLUMNS
from ionbed.spectra.molecules import standardise
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store, table_from_spectra


def unlabelled(spectra: Sequence[Spectrum], prefix: str = "bare", noise: float = 0.0) -> list[Spectrum]:
    """The spectra without their structures; with noise on their intensities they are near-duplicates, not copies."""
    rng = np.random.default_rng(0)
    return [
        replace(
            s,
            spectrum_id=f"{prefix}-{s.spectrum_id}",
            smiles=None,
            inchikey=None,
            name=None,
            intensity=(s.intensity * (1 + noise * rng.random(len(s)))).astype(np.float32),
        )
        for s in spectra
    ]


def by_audit(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.audit: finding for finding in findings}


def audited(spectra: Sequence[Spectrum], split: Split, fold: str = "test") -> dict[str, Finding]:
    return by_audit(split_findings(split, table_from_spectra(spectra).select(AUDIT_COLUMNS), fold))


def held_out_spectra(spectra: Sequence[Spectrum], folds: dict[int, str], build: SimpleNamespace) -> list[Spectrum]:
    held_out = {build.block(molecule) for molecule, fold in folds.items() if fold == "test"}
    return [s for s in spectra if s.inchikey and s.inchikey[:14] in held_out and len(s) >= 5]


@pytest.mark.parametrize("seed", range(10))
def test_a_clean_split_passes(seed, build):
    spectra, folds = build.isomers(60, seed=seed)
    # Unlabelled spectra of other molecules lie in train, as they do in any store.
    others = unlabelled(build.isomers(60, seed=100 + seed)[0])
    found = audited([*spectra, *others], build.split_of(folds))
    assert [finding.passed for finding in found.values()] == [True] * 3, found


def test_unlabelled_copies_and_near_duplicates_in_train_are_found(build):
    spectra, folds = build.isomers(60)
    held_out = held_out_spectra(spectra, folds, build)
    one_copy = audited([*spectra, *unlabelled(held_out[:1])], build.split_of(folds))
    assert one_copy[UNLABELLED_SPECTRA].passed is False
    assert one_copy[UNLABELLED_SPECTRA].evidence["spectra with an unlabelled copy"] == 1
    assert one_copy[UNLABELLED_SPECTRA].evidence["examples"] == [
        [held_out[0].spectrum_id, f"bare-{held_out[0].spectrum_id}"]
    ]
    alike = audited([*spectra, *unlabelled(held_out, noise=0.05)], build.split_of(folds))
    assert alike[UNLABELLED_SPECTRA].passed is False
    assert alike[UNLABELLED_SPECTRA].evidence["spectra with an unlabelled copy"] == 0
    few = audited([*spectra, *unlabelled(held_out[:1], noise=0.05)], build.split_of(folds))
    assert few[UNLABELLED_SPECTRA].passed is True


def test_a_molecule_in_two_folds_is_found(build):
    spectra, folds = build.isomers(60)
    held_out = held_out_spectra(spectra, folds, build)
    by_spectrum = {s.spectrum_id: folds[int(s.spectrum_id.split("-")[0])] for s in spectra}
    by_spectrum[held_out[0].spectrum_id] = "train"
    found = audited(spectra, Split("inchikey-block", 0, by_spectrum, unit="spectrum"))
    assert found[SHARED_FOLDS].passed is False


def test_a_near_duplicate_of_the_same_molecule_in_train_is_found(build):
    spectra, folds = build.isomers(60)
    held_out = held_out_spectra(spectra, folds, build)[0]
    copy = replace(held_out, spectrum_id="copy")
    by_spectrum = {s.spectrum_id: folds[int(s.spectrum_id.split("-")[0])] for s in spectra} | {"copy": "train"}
    found = audited([*spectra, copy], Split("random-spectrum", 0, by_spectrum, unit="spectrum", shares=("molecules",)))
    assert found[SHARED_SPECTRA].passed is False
    assert [held_out.spectrum_id, "copy"] in found[SHARED_SPECTRA].evidence["examples"]


def test_copies_under_another_name_are_tolerated_up_to_a_share(build):
    spectra, folds = build.isomers(60)
    held_out = held_out_spectra(spectra, folds, build)
    train = next(molecule for molecule, fold in folds.items() if fold == "train")
    renamed = [
        replace(s, spectrum_id=f"copy-{s.spectrum_id}", inchikey=f"{build.block(train)}-UHFFFAOYSA-N")
        for s in held_out[: len(held_out) // 2]
    ]
    assert audited([*spectra, *renamed], build.split_of(folds))[SHARED_SPECTRA].passed is False
    assert audited([*spectra, *renamed[:1]], build.split_of(folds))[SHARED_SPECTRA].passed is True


def test_a_fold_without_spectra_cannot_be_audited(build):
    spectra, folds = build.isomers(24)
    found = audited(spectra, build.split_of(folds), "validation")
    assert found[SHARED_SPECTRA].passed is None
    assert "'validation'" in found[SHARED_SPECTRA].sentence


@pytest.mark.parametrize("seed", range(10))
def test_a_corpus_without_the_queries_passes(seed, build, make_data, tmp_path):
    spectra, folds = build.isomers(60, seed=seed)
    data = make_data(spectra, folds)
    others = build.isomers(60, seed=100 + seed)[0]
    labelled = [s for s in spectra if folds[int(s.spectrum_id.split("-")[0])] == "train"]
    corpus = build.write_store(tmp_path / "corpus", [*unlabelled(others), *labelled])
    found = by_audit(corpus_overlap(data, data.rows_in("test"), {"corpus": corpus}))
    assert {name: finding.passed for name, finding in found.items()} == {CORPUS_STRUCTURES: True, CORPUS_SPECTRA: True}
    assert found[CORPUS_SPECTRA].evidence["spectra in the corpus"] == len(others) + len(labelled)


def overlap(
    build: SimpleNamespace,
    make_data: Callable[..., EvaluationData],
    folder: Path,
    corpus: Callable[..., list[Spectrum]],
) -> dict[str, Finding]:
    spectra, folds = build.isomers(60)
    data = make_data(spectra, folds)
    planted = corpus(held_out_spectra(spectra, folds, build))
    others = unlabelled(build.isomers(60, seed=100)[0])
    store = build.write_store(folder / "corpus", [*others, *planted])
    return by_audit(corpus_overlap(data, data.rows_in("test"), {"corpus": store}))


def test_a_structure_of_a_query_in_a_corpus_is_found_though_its_spectrum_is_another(build, make_data, tmp_path):
    def other_spectrum(held_out: list[Spectrum]) -> list[Spectrum]:
        return [build.spectrum(900, 0, inchikey=held_out[0].inchikey, precursor_mz=777.0)]

    found = overlap(build, make_data, tmp_path, other_spectrum)
    assert found[CORPUS_STRUCTURES].passed is False
    assert found[CORPUS_STRUCTURES].evidence["of these in the corpus"] == 1
    assert found[CORPUS_SPECTRA].passed is True


def test_one_unlabelled_copy_in_a_corpus_is_found(build, make_data, tmp_path):
    found = overlap(build, make_data, tmp_path, lambda held_out: unlabelled(held_out[:1], "planted"))
    assert found[CORPUS_SPECTRA].passed is False
    assert found[CORPUS_STRUCTURES].passed is None  # the corpus names none
    assert found[CORPUS_SPECTRA].evidence["examples"][0][1].startswith("planted-")


def test_unlabelled_near_duplicates_in_a_corpus_are_found(build, make_data, tmp_path):
    found = overlap(build, make_data, tmp_path, lambda held_out: unlabelled(held_out, "planted", noise=0.05))
    assert found[CORPUS_SPECTRA].passed is False
    assert found[CORPUS_SPECTRA].evidence["spectra with an unlabelled copy"] == 0


def test_a_file_of_molecules_is_a_corpus(build, make_data, tmp_path):
    smiles = "CCCCc1ccccc1"
    molecule = standardise(smiles)
    assert molecule is not None
    queries = [build.spectrum(1, number, smiles=smiles, inchikey=molecule.inchikey) for number in range(3)]
    store = Store(build.write_store(tmp_path / "queries", queries))
    data = load_evaluation_data(store, Split("inchikey-block", 0, {molecule.inchikey[:14]: "test"}))
    (tmp_path / "with.smi").write_text(f"CCO ethanol\n{smiles} mine\n")
    (tmp_path / "without.smi").write_text("CCO ethanol\n")
    corpora = {"with": tmp_path / "with.smi", "without": tmp_path / "without.smi"}
    found = {(f.about, f.audit): f.passed for f in corpus_overlap(data, data.rows_in("test"), corpora)}
    assert found["with", CORPUS_STRUCTURES] is False
    assert found["without", CORPUS_STRUCTURES] is True
    assert found["with", CORPUS_SPECTRA] is None


def test_what_is_no_corpus_is_refused_in_one_line(build, make_data, tmp_path):
    data = make_data(*build.isomers(24))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is no store"):
        corpus_overlap(data, data.rows_in("test"), {"corpus": tmp_path / "empty"})
    (tmp_path / "wrong.smi").write_text("smiles name\nnot-a-structure x\n")
    with pytest.raises(InputError, match=r"wrong\.smi"):
        corpus_overlap(data, data.rows_in("test"), {"corpus": tmp_path / "wrong.smi"})


def test_a_damaged_shard_of_a_corpus_is_named(build, make_data, tmp_path):
    data = make_data(*build.isomers(24))
    corpus = build.write_store(tmp_path / "corpus", unlabelled(build.isomers(24)[0]))
    shard = corpus / "spectra-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)
    shard.write_bytes(content)
    with pytest.raises(InputError, match="spectra-00000"):
        corpus_overlap(data, data.rows_in("test"), {"corpus": corpus})


def test_sign_test_is_exact():
    assert sign_test_p(0, 0) == 1.0
    assert sign_test_p(10, 0) == pytest.approx(2**-10)
    assert sign_test_p(0, 10) == 1.0
    assert sign_test_p(3, 1) == pytest.approx(5 / 16)
    assert sign_test_p(5000, 3000) < 1e-50
