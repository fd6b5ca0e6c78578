"""`ionbed fuse` from a model to its row in the tables: what is fitted, on whom, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ionbed.cli import main
from ionbed.configs.loading import load_config
from ionbed.embeddings.consensus import Consensus, Structures
from ionbed.embeddings.fusion import EMBEDDING_COSINE, WINDOW_TERMS, FusedScore, Fusion, fusion_of
from ionbed.embeddings.index import Index
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.loading import load_model
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.errors import InputError
from ionbed.evaluation.baselines.transfer import transfer_label
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.dataset import EvaluationData, load_evaluation_data
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.fuse import FOLD, FuseOptions, fuse
from ionbed.evaluation.fused import FusedScorer, fused_entries, fused_label, lookups_label
from ionbed.evaluation.measure import measure
from ionbed.evaluation.question import ask
from ionbed.evaluation.rows import SPECTRA, model_entry, table_rows
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.lookups import LABELS, LookupOptions
from ionbed.spectra.pair_features import FEATURES, ComparedSpectra
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store

OPTIONS = FuseOptions(depth=10, workers=1)
ACIDS = ("C", "CCC", "c1ccccc1", "C1CCCCC1", "c1ccncc1", "CS", "ClC", "c1ccoc1")
AMINES = ("C", "CCO", "c1ccccc1", "C1CCCC1", "CC#N", "CCS")
MOLECULES = len(ACIDS) * len(AMINES) // 2
"""In either fold."""


def amides() -> tuple[list[Spectrum], dict[int, str]]:
    """Every acid with every amine: each has peaks of its own, so that relatives look alike; one acid, one precursor."""
    from .conftest import spectrum

    rng = np.random.default_rng(0)
    parts = rng.uniform(60, 180, (len(ACIDS) + len(AMINES), 4))
    spectra, folds = [], {}
    for molecule, (acid, amine) in enumerate(np.ndindex(len(ACIDS), len(AMINES))):
        folds[molecule] = ("train", FOLD)[(acid + amine) % 2]
        own = np.concatenate([parts[acid], parts[len(ACIDS) + amine], rng.uniform(60, 180, 2)])
        for number in range(4):
            mz = np.concatenate([own[rng.random(10) < 0.6], own[:1], rng.uniform(60, 180, 3)]) + rng.normal(0, 0.002)
            made = spectrum(
                molecule,
                number,
                precursor_mz=200.0 + 20.0 * acid,
                laboratory=("Alpha", "Beta")[number % 2],
                mz=np.unique(mz.astype(np.float32)),
                intensity=rng.uniform(0.2, 1.0, len(np.unique(mz.astype(np.float32)))),
                smiles=f"{ACIDS[acid]}C(=O)N{AMINES[amine]}",
            )
            spectra.append(replace(made, collision_energy=(10.0, 40.0)[number // 2]))
    return spectra, folds


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A store of 48 molecules, half of them in the validation fold, a model that held them out, and it fused."""
    from .conftest import split_of, write_store

    folder = tmp_path_factory.mktemp("fuse")
    spectra, folds = amides()
    store = write_store(folder / "store", spectra)
    split_of(folds).save(folder / "split.json")
    split = Split.load(folder / "split.json")
    stage = {"command": "finetune", "split": split.hash, "folds": ["train"]}
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_mz_wavelengths": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        IonbedModel(IonbedConfig(**sizes, training=[stage])).save_pretrained(folder / "model")
    (folder / "model" / "README.md").write_text("card")
    (folder / "model" / "head.json").write_text("head")
    fusion = fuse(folder / "model", store, folder / "split.json", folder / "fused", OPTIONS)
    data = load_evaluation_data(Store(store), split)
    return SimpleNamespace(folder=folder, store=store, split=split, fusion=fusion, data=data)


def test_the_model_is_written_with_its_score_and_is_otherwise_what_it_was(made: SimpleNamespace) -> None:
    before, after = load_model(made.folder / "model"), load_model(made.folder / "fused")
    assert fusion_of(before) is None and fusion_of(after) == made.fusion
    assert after.model_hash() == before.model_hash() == made.fusion.model_hash
    assert after.config.training == before.config.training
    assert [(made.folder / "fused" / name).read_text() for name in ("README.md", "head.json")] == ["card", "head"]
    fitted = made.fusion.fitted
    assert (fitted["fold"], fitted["split"], fitted["molecules"]) == (FOLD, made.split.hash, MOLECULES)
    manifest = json.loads((made.folder / "fused" / "manifest.json").read_text())
    assert manifest["command"] == "fuse" and manifest["fusion"]["fitted"] == fitted


def test_the_score_is_no_worse_than_a_lookup_and_says_so(made: SimpleNamespace) -> None:
    same, analogue = (made.fusion.fitted[name] for name in ("same molecule", "analogue search"))
    assert same["pairs"] > same["pairs of one molecule"] > 0 and analogue["queries"] == 4 * MOLECULES
    for figures in (same, analogue):
        assert next(iter(figures["scores"])) == EMBEDDING_COSINE and len(figures["scores"]) == 5
        lookups = [value for name, value in figures["scores"].items() if name != EMBEDDING_COSINE]
        assert figures["fused"] > max(lookups) - 0.01
        assert 0 < figures["look-ups fused"] <= 1
    assert same["scores"]["spectral entropy"] > 0.8  # the peaks do tell these molecules apart
    for score in (made.fusion.window_lookups, made.fusion.open_lookups):
        assert not any(EMBEDDING_COSINE in term for term in score.terms)


@pytest.mark.parametrize("precursor_ppm", [10.0, None])
def test_a_copy_of_the_query_is_first(made: SimpleNamespace, precursor_ppm: float | None) -> None:
    """Though no fit has seen one: copies are left out of pairs, and an open search is fitted to other molecules."""
    model = load_model(made.folder / "fused")
    library = list(Store(made.store))
    hits = Index.build(model, library).search(library, k=1, precursor_ppm=precursor_ppm, score="fused")
    found = [hit.metadata["spectrum_id"] for (hit,) in hits]
    assert found == [spectrum.spectrum_id for spectrum in library]


def test_energies_say_nothing_of_two_spectra_with_the_same_peaks() -> None:
    score = FusedScore(WINDOW_TERMS, (2.3, 4.0, -1.8, 0.7, 2.7), -5.0)
    features = np.zeros((4, len(FEATURES)))
    features[:, FEATURES.index("spectral entropy")] = (1.0, 1.0, 0.6, 0.6)
    features[:, FEATURES.index("dissimilarity")] = (0.0, 0.0, 0.64, 0.64)
    features[:, FEATURES.index("energy difference")] = (0.0, 4.0, 0.0, 4.0)
    same, same_far, other, other_far = score(np.ones(4), features)
    assert same == same_far > other_far > other


def test_the_same_fit_twice_is_the_same(made: SimpleNamespace, tmp_path: Path) -> None:
    again = fuse(made.folder / "model", made.store, made.folder / "split.json", tmp_path / "again", OPTIONS)
    assert again == made.fusion
    written = [
        json.loads((folder / "config.json").read_text()) for folder in (made.folder / "fused", tmp_path / "again")
    ]
    assert written[0] == written[1]


def test_only_molecules_of_the_validation_fold_are_queries(made: SimpleNamespace, monkeypatch, tmp_path: Path) -> None:
    from ionbed.evaluation import fuse as module

    asked = []
    plain = module._fit_pairs

    def seen(data: EvaluationData, terms: tuple[str, ...], *rest: np.ndarray):
        asked.append(set(data.fold[rest[-1]].tolist()))
        return plain(data, terms, *rest)

    monkeypatch.setattr(module, "_fit_pairs", seen)
    replace(made.split, seed=1).save(tmp_path / "other.json")
    options = replace(OPTIONS, allow_other_split=True)
    found = fuse(made.folder / "model", made.store, tmp_path / "other.json", tmp_path / "out", options)
    assert asked == [{FOLD}] * 3  # of windows, of an open search, and copies
    assert "used another split" in found.fitted["exposure"] and made.fusion.fitted["exposure"] is None


def test_no_spectrum_of_the_test_fold_takes_part(made: SimpleNamespace, monkeypatch) -> None:
    from ionbed.evaluation import fuse as module

    # Every other molecule of the fold goes to 'test': molecules of one acid share a precursor, so all folds would meet.
    of_fold = np.unique(made.data.molecule[made.data.rows_in(FOLD)])
    moved = np.isin(made.data.molecule, of_fold[::4])
    data = replace(made.data, fold=np.where(moved, "test", made.data.fold))
    seen: set[str] = set()
    plain = ComparedSpectra.features

    def compared(columns: SpectrumColumns, *options, **more) -> ComparedSpectra:
        result = ComparedSpectra(columns, *options, **more)
        result.columns = columns
        return result

    def features(self: ComparedSpectra, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        for row in np.union1d(first, second).tolist():
            span = slice(*self.columns.offsets[row : row + 2])
            seen.update(folds_of[self.columns.mz[span].tobytes()])
        return plain(self, first, second)

    folds_of: dict[bytes, set[str]] = {}
    for row, fold in enumerate(data.fold.tolist()):
        folds_of.setdefault(data.columns.mz[slice(*data.columns.offsets[row : row + 2])].tobytes(), set()).add(fold)
    monkeypatch.setattr(module, "ComparedSpectra", compared)
    monkeypatch.setattr(ComparedSpectra, "features", features)
    module.fit(data, load_model(made.folder / "model"), OPTIONS)
    assert seen == {"train", FOLD}


def test_a_consensus_is_used_with_the_model_and_without_it_or_not_at_all(made: SimpleNamespace, monkeypatch) -> None:
    from ionbed.evaluation import fuse as module

    model, gains, told = load_model(made.folder / "model"), [], []
    for is_worth in (True, False):
        monkeypatch.setattr(module, "pays", lambda gain, group, w=is_worth: gains.append((gain, group)) or w)
        scores, figures = module.fit(made.data, model, OPTIONS)
        found = figures["analogue search"]
        if is_worth:
            assert scores.consensus.depth == scores.consensus_lookups.depth == 20  # of 24 molecules
            assert scores.consensus != scores.consensus_lookups
        else:
            assert scores.consensus is scores.consensus_lookups is None
            assert found["without consensus"] == {name: found[name] for name in ("fused", "look-ups fused")}
        assert "without consensus]" in module._in_words("analogue search", found)
        told.append(found)
    gain, group = gains[0]
    assert len(gain) == len(group) == 4 * MOLECULES and len(np.unique(group)) == MOLECULES
    differences = [told[0][name] - told[1][name] for name in ("fused", "look-ups fused")]
    assert gain.mean() == pytest.approx(np.mean(differences)) and gain.any()


def test_what_cannot_be_fitted_is_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    folder, out = made.folder, tmp_path / "out"
    with pytest.raises(InputError, match="already exists"):
        fuse(folder / "model", made.store, folder / "split.json", folder / "fused", OPTIONS)
    blocks = {block: "train" if number % 3 else FOLD for number, block in enumerate(made.split.folds)}
    replace(made.split, folds=blocks).save(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"may have seen the molecules .* another split.* pass --allow-other-split"):
        fuse(folder / "model", made.store, tmp_path / "other.json", out, OPTIONS)
    with pytest.raises(InputError, match=r"its fold 'validation' holds 16 molecules .* at least 20"):
        allowed = replace(OPTIONS, allow_other_split=True)
        fuse(folder / "model", made.store, tmp_path / "other.json", out, allowed)
    assert not out.exists()
    words = ["fuse", str(folder / "model"), str(made.store), "--split", str(tmp_path / "none.json"), "--out", str(out)]
    assert main(words) == 2


def test_pairs_that_no_energy_has_of_both_kinds_are_refused(made: SimpleNamespace, monkeypatch) -> None:
    """A score without any weight would rank all candidates alike."""
    from ionbed.evaluation import fuse as module

    plain = module._fit_pairs

    def apart(*options) -> tuple:
        found, singles = plain(*options)
        return replace(found, energy=np.column_stack([np.zeros(len(found.target)), found.target])), singles

    monkeypatch.setattr(module, "_fit_pairs", apart)
    with pytest.raises(InputError, match=r"within a window cannot be fitted: at no difference .* use more spectra"):
        module.fit(made.data, load_model(made.folder / "model"), OPTIONS)


def entries_of(made: SimpleNamespace, models: dict[str, list], fold: str, split_hash: str | None = None) -> list[Entry]:
    plain = [model_entry(label, of_label, None) for label, of_label in models.items()]
    return fused_entries(plain, models, SPECTRA, split_hash=split_hash or made.split.hash, fold=fold, workers=1)


def test_a_model_with_a_score_has_two_rows_more(made: SimpleNamespace) -> None:
    plain, fused = load_model(made.folder / "model"), load_model(made.folder / "fused")
    alone, row = entries_of(made, {"plain": [plain], "mine": [fused]}, "test")
    assert (alone.label, alone.kind) == (lookups_label("mine"), "trained")
    assert (row.label, row.kind) == (fused_label("mine"), "learned")
    assert row.known == alone.known == ("precursor_mz", "collision_energy")
    assert [corpus.name for corpus in row.trained_on] == ["finetune", "fuse"]
    assert [corpus.name for corpus in alone.trained_on] == ["fuse"]
    assert row.exposure is None and alone.exposure is None
    assert all("fitted on the fold" in entry.exposure for entry in entries_of(made, {"mine": [fused]}, FOLD))
    assert all("another split" in entry.exposure for entry in entries_of(made, {"mine": [fused]}, "test", "x"))
    with pytest.raises(InputError, match=r"models.mine: 1 of its 2 trainings carry a fused score"):
        entries_of(made, {"mine": [fused, plain]}, "test")


def test_the_rows_score_as_a_search_does(made: SimpleNamespace) -> None:
    data, model = made.data, load_model(made.folder / "fused")
    molecules = candidate_molecules(data, (), None, workers=1)
    queries, library = data.rows_in(FOLD)[:20], data.rows_in("train")
    alone, row = (
        entry.builds[0](data, molecules, np.arange(len(data))) for entry in entries_of(made, {"m": [model]}, "test")
    )
    scores, of_lookups = row.scores(queries, library), alone.scores(queries, library)
    assert scores.shape == of_lookups.shape == (20, len(library))
    by_id = {spectrum.spectrum_id: spectrum for spectrum in Store(made.store)}
    index = Index.build(model, [by_id[name] for name in data.spectrum_id[library]])
    asked = [by_id[name] for name in data.spectrum_id[queries]]
    found = index.search(asked, k=len(library), precursor_da=1e5, score="fused")  # a window that holds everything
    place = {name: number for number, name in enumerate(data.spectrum_id[library])}
    columns = np.array([place[name] for name in index.metadata["spectrum_id"].to_pylist()])
    first, second = np.repeat(queries, len(library)), np.tile(library, 20)
    expected = np.empty_like(scores)
    np.put_along_axis(expected, columns[found.rows], found.scores, axis=1)
    np.testing.assert_allclose(row.pair_scores(first, second).reshape(scores.shape), expected, atol=1e-5)
    assert np.abs(alone.pair_scores(first, second) - row.pair_scores(first, second)).max() > 1e-3
    np.testing.assert_array_equal(np.isnan(scores), False)  # fewer than are scored in an open search


@pytest.mark.parametrize("is_on", [False, True])
def test_the_rows_rank_an_open_search_as_a_search_does(made: SimpleNamespace, is_on: bool) -> None:
    data, model = made.data, load_model(made.folder / "fused")
    consensus = Consensus(temperature=0.2, depth=6, own=0.3, support=4.0, intercept=-2.0) if is_on else None
    model.config.fusion = replace(made.fusion, consensus=consensus, consensus_lookups=consensus).to_tree()
    molecules = candidate_molecules(data, (), None, workers=1)
    queries = data.rows_in(FOLD)[:20]
    alone, row = (
        entry.builds[0](data, molecules, np.arange(len(data))) for entry in entries_of(made, {"m": [model]}, "test")
    )
    stored = [spectrum for spectrum in Store(made.store) if spectrum.spectrum_id in set(data.spectrum_id)]
    by_id = {spectrum.spectrum_id: spectrum for spectrum in stored}
    library = data.rows_in("train")
    index = Index.build(model, [by_id[name] for name in data.spectrum_id[library]])
    hits = index.search(
        [by_id[name] for name in data.spectrum_id[queries]], k=len(library), precursor_ppm=None, score="fused"
    )
    place = {name: number for number, name in enumerate(data.spectrum_id[library])}
    expected = np.empty((20, len(library)))
    columns = np.array([place[name] for name in index.metadata["spectrum_id"].to_pylist()])
    np.put_along_axis(expected, columns[hits.rows], hits.scores, axis=1)
    np.testing.assert_allclose(row.scores(queries, library), expected, atol=1e-5)
    weights = {name for name in row.weights if name.startswith("consensus")}
    assert weights == ({"consensus: own score", "consensus: support"} if is_on else set())
    assert np.abs(alone.scores(queries, library) - expected).max() > 1e-3


def test_a_row_abstains_on_what_neither_score_proposes(made: SimpleNamespace) -> None:
    data = made.data
    queries, library = data.rows_in(FOLD)[:20], data.rows_in("train")
    compared = ComparedSpectra(data.columns, LookupOptions(), workers=1)
    terms = FusedScore((EMBEDDING_COSINE, "hybrid entropy"), (1.0, 1.0), 0.0)
    fusion = Fusion("", LookupOptions(), terms, terms, *2 * [FusedScore(("cosine",), (1.0,), 0.0)])
    rng = np.random.default_rng(0)
    cosine = rng.uniform(-1, 1, (20, len(library))).astype(np.float32)
    cosines = SimpleNamespace(scores=lambda queries, library: cosine)
    structures = Structures(data.molecule, lambda of: np.zeros((len(of), 256), np.uint8))
    by_peaks = compared.hybrid_entropy.scores(queries, library)
    scores = FusedScorer("both", cosines, compared, structures, fusion, depth=2).scores(queries, library)
    alone = FusedScorer("peaks", None, compared, structures, fusion, depth=2).scores(queries, library)
    for query in range(20):
        kept = {*np.argsort(-cosine[query])[:2], *np.argsort(-by_peaks[query])[:2]}
        scored = set(np.flatnonzero(~np.isnan(scores[query])))
        assert {cosine[query].argmax(), by_peaks[query].argmax()} <= scored
        assert len(scored) == len(kept)
        assert len(np.flatnonzero(~np.isnan(alone[query]))) == 2 and ~np.isnan(alone[query, by_peaks[query].argmax()])


def test_the_tables_hold_both_rows(made: SimpleNamespace) -> None:
    overrides = [
        f"dataset={made.store}",
        f"split={made.folder / 'split.json'}",
        "fold=validation",
        "trained_baselines.trainings=0",
        "workers=1",
    ]
    config, data = load_config(EvaluationConfig, "evaluate", overrides), made.data
    molecules = candidate_molecules(data, (), None, workers=1)
    models = {"mine": [load_model(made.folder / "fused")]}
    entries = table_rows(data, molecules, models, {"mine": None}, config, split_hash=made.split.hash)
    labels = [entry.label for entry in entries]
    for label in ("mine", fused_label("mine"), lookups_label("mine")):
        assert label in labels and transfer_label(label) in labels
    questions = [ask(name, data, molecules, config) for name in ("same molecule, any partner", "analogue search")]
    found = measure(questions, data, molecules, entries, BootstrapOptions(resamples=100), seed=0)
    for result in found:
        rows = {row["label"]: row for row in result.tree["rows"]}
        row, alone, plain = (rows[label] for label in (fused_label("mine"), lookups_label("mine"), "mine"))
        assert row["exposure"] == "its fused score was fitted on the fold 'validation'" and plain["exposure"] is None
        assert row["differences"] and alone["differences"]
        assert row["weights"][0][f"window: {EMBEDDING_COSINE}"] == made.fusion.window.weights[0]
        assert alone["weights"][0]["open: hybrid entropy"] > 0 and plain["weights"] is None
        main = result.tree["main"]
        best = max(rows[label]["metrics"][main]["micro"]["value"] for label in LABELS)
        assert row["metrics"][main]["micro"]["value"] > best - 0.01
