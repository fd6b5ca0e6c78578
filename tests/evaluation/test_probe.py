"""The probe as a whole: it finds what was planted, gives no credit for nothing, and refuses what it cannot judge."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from ionbed import cli
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.errors import InputError
from ionbed.evaluation.dataset import EvaluationData
from ionbed.evaluation.probe import run
from ionbed.evaluation.probe.features import (
    BIN_WIDTH,
    BINNED_PEAKS,
    MAX_MZ,
    NO_SPECTRUM,
    RANDOM_WEIGHTS,
    binned_peaks,
    embedded,
    untrained_twin,
)
from ionbed.evaluation.probe.heads import SPECTRA_TO_CHOOSE_BY
from ionbed.evaluation.probe.run import ProbeOptions, draw_spectra, probe
from ionbed.evaluation.probe.table import markdown, print_tables
from ionbed.evaluation.probe.targets import METRICS, SUBSTRUCTURES, TARGETS, TargetOptions, describe, targets_of
from ionbed.evaluation.probe.zero_shot import QUESTIONS
from ionbed.evaluation.statistics import Estimate
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.measurement_features import PRECURSOR_WAVELENGTHS, condition_features
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.split import Split

ENDS = ("O", "N", "S", "Cl", "C(=O)O", "c1ccccc1")
CLASSES = ("Alcohols", "Amines", "Thiols", "Halides", "Acids", "Benzenoids")
MARKERS = np.arange(len(ENDS)) * 10 + 200.5
"""m/z of the peak that gives the end of a molecule away; a second one gives the length of its chain."""
OPTIONS = ProbeOptions(
    random_seeds=2, resamples=100, targets=TargetOptions(min_train_molecules=3, min_test_molecules=2, max_bits=8)
)


class Reader(IonbedModel):
    """Embeds what the marker peaks say: an encoder that has understood these spectra."""

    def embed(self, spectra: SpectrumColumns, *, batch_tokens: int = 4096, progress: bool = False) -> np.ndarray:
        found = np.zeros((len(spectra), len(ENDS) + 1), np.float32)
        row, _ = spectra.peak_places()
        for place, marker in enumerate(MARKERS):
            found[row[np.abs(spectra.mz - marker) < 0.1], place] = 1.0
        of_chain = (spectra.mz > 300) & (spectra.mz < 400)
        found[row[of_chain], -1] = (spectra.mz[of_chain] - 300) / 20
        return found / np.linalg.norm(found, axis=1, keepdims=True)


class Mute(IonbedModel):
    """Embeds every spectrum alike."""

    def embed(self, spectra: SpectrumColumns, *, batch_tokens: int = 4096, progress: bool = False) -> np.ndarray:
        return np.full((len(spectra), 4), 0.5, np.float32)


def model(of: type[IonbedModel], split: Split | None, *, hidden_size: int = 8) -> IonbedModel:
    stages = [] if split is None else [{"command": "pretrain", "split": split.hash, "folds": ["train"]}]
    config = IonbedConfig(
        hidden_size=hidden_size, num_layers=1, num_heads=1, mlp_ratio=1, num_mz_wavelengths=4, training=stages
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return of(config).eval()


@pytest.fixture(scope="module")
def spectra() -> list[Spectrum]:
    """66 molecules with noise, a peak that tells their end, and one that tells their chain; precursors tell nothing."""
    rng = np.random.default_rng(0)
    made = []
    for molecule in range(66):
        length, end = divmod(molecule, 6)
        precursor = 500.0 + 0.01 * rng.integers(0, 3)
        for number in range(2):
            noise = rng.uniform(50, 200, 6)
            mz = np.sort(np.append(noise, [MARKERS[end], 300.0 + 5 * length]))
            made.append((molecule, number, precursor, mz, rng.uniform(0.2, 1.0, 8), "C" * (length + 2) + ENDS[end]))
    return made


@pytest.fixture
def split(build: SimpleNamespace) -> Split:
    fold = ("train", "train", "train", "validation", "test", "test")
    return build.split_of({molecule: fold[(molecule // 6 + molecule) % 6] for molecule in range(66)})


@pytest.fixture
def store(build: SimpleNamespace, spectra, tmp_path: Path) -> Path:
    return build.write_store(
        tmp_path / "store",
        [
            replace(
                build.spectrum(molecule, number, precursor_mz=precursor, mz=mz, intensity=intensity / intensity.max(),
                               smiles=smiles, laboratory=("Alpha", "Beta")[number]),
                chemical_class=f"Organic compounds;{CLASSES[molecule % 6]};Chains",
            )
            for molecule, number, precursor, mz, intensity, smiles in spectra
        ],
    )  # fmt: skip


@pytest.fixture
def data(store: Path, split: Split) -> EvaluationData:
    from ionbed.evaluation.dataset import load_evaluation_data
    from ionbed.spectra.store import Store

    return load_evaluation_data(Store(store), split)


def contains(estimate: Estimate, value: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= value <= estimate.high


def test_what_an_encoder_has_understood_is_found_and_what_it_has_not_is_not(data, split) -> None:
    models = {"reader": model(Reader, split), "mute": model(Mute, split)}
    result = probe(models, data, split, replace(OPTIONS, reference="mute"))

    assert list(result.tree["tasks"]) == [
        "chemical superclass", "fingerprint bits", "substructures", "properties",
        "same molecule", "library search", "analogue search",
    ]  # fmt: skip
    json.dumps(result.tree, allow_nan=False)
    for task in ("chemical superclass", "fingerprint bits", "substructures"):
        assert result.value(task, "reader").value > 0.95
    assert result.value("chemical superclass", BINNED_PEAKS).value > 0.9
    for task in ("fingerprint bits", "substructures"):
        assert result.value(task, NO_SPECTRUM) == Estimate(0.5, 0.5, 0.5)

        assert result.value(task, "mute") == result.value(task, NO_SPECTRUM)
        assert contains(result.value(task, "precursor only"), 0.5)
    assert result.value("properties", "reader").value > 0.8
    assert abs(result.value("properties", NO_SPECTRUM).value) < 0.2
    for task in result.tree["tasks"].values():
        (row,) = (row for row in task["rows"] if row["label"] == "reader")
        by_role = {found["role"]: found for found in row["differences"] if found["metric"] == task["main"]}
        assert {"untrained", "precursor only", BINNED_PEAKS, "reference"} < by_role.keys()
        assert by_role["untrained"]["against"] == RANDOM_WEIGHTS
        assert by_role["reference"]["against"] == "mute"
        if task["kind"] == "linear probe":
            assert by_role["reference"]["verdict"] == "beats"
            assert by_role[NO_SPECTRUM]["verdict"] == "beats"
        else:
            assert by_role["random"]["verdict"] == "beats"
        (twin,) = (row for row in task["rows"] if row["label"] == RANDOM_WEIGHTS)
        assert (twin["kind"], twin["trainings"]) == ("untrained", 2)
    assert result.value("library search", "reader").value == 1.0


def test_the_same_probe_gives_the_same_numbers_and_another_seed_other_twins(data, split) -> None:
    options = replace(OPTIONS, zero_shot=False)
    models = {"plain": model(IonbedModel, split)}
    first, second, other = (probe(models, data, split, options, seed=seed) for seed in (0, 0, 7))
    assert first.tree == second.tree
    for task in first.tree["tasks"]:
        assert first.value(task, RANDOM_WEIGHTS) != other.value(task, RANDOM_WEIGHTS)


def test_several_trainings_are_one_row_and_each_configuration_has_its_twin(data, split) -> None:
    models = {
        "two": [model(Reader, split), model(Mute, split)],
        "large": model(Reader, split, hidden_size=16),
    }
    result = probe(models, data, split, replace(OPTIONS, random_seeds=1))
    alone = [probe({"one": of}, data, split, replace(OPTIONS, random_seeds=0, resamples=100)) for of in models["two"]]
    for name, task in result.tree["tasks"].items():
        rows = {row["label"]: row for row in task["rows"]}
        assert rows["two"]["trainings"] == 2
        assert {f"{RANDOM_WEIGHTS} (two)", f"{RANDOM_WEIGHTS} (large)"} < rows.keys()
        against = {found["against"] for found in rows["large"]["differences"]}
        assert f"{RANDOM_WEIGHTS} (large)" in against and f"{RANDOM_WEIGHTS} (two)" not in against
        mean = np.mean([one.value(name, "one").value for one in alone])
        assert result.value(name, "two").value == pytest.approx(mean)


def test_validation_is_asked_about_without_being_used_to_choose(data, split, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(run, "Design", lambda train, validation, test: seen.append((train, validation, test)))
    monkeypatch.setattr(run, "_heads", lambda vectors, features, data, folds, targets: seen.append(folds) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        probe({"m": model(Mute, split)}, data, split, replace(OPTIONS, fold="validation"))
    drawn_folds = seen[0]
    rows = [set(part.tolist()) for part in drawn_folds]
    drawn = data.fold
    assert {drawn[row] for row in rows[0] | rows[1]} == {"train"} and {drawn[row] for row in rows[2]} == {"validation"}
    molecules = [set(data.molecule[part].tolist()) for part in drawn_folds]
    assert not molecules[0] & molecules[1]


def test_training_spectra_are_drawn_evenly_and_the_asked_fold_is_whole(data) -> None:
    fingerprint = np.ones((len(data.inchikey_block), 256), np.uint8)
    num_train = len(np.unique(data.molecule[data.rows_in("train")]))
    for limit, each in ((2 * num_train, 2), (2 * num_train - 1, 1), (num_train - 5, 1)):
        options = replace(OPTIONS, max_train_spectra=limit, max_spectra_per_molecule=1)
        drawn = draw_spectra(data, SimpleNamespace(fingerprint=fingerprint), options, seed=0)
        counts = np.bincount(drawn.molecule[drawn.rows_in("train")])
        assert set(counts[counts > 0]) == {each} and counts.sum() == min(limit, each * num_train)
        assert len(drawn.rows_in("test")) == len(data.rows_in("test"))
        assert len(drawn.rows_in("validation")) == len(data.rows_in("validation")) // 2
    fingerprint[data.molecule[data.rows_in("train")[0]]] = 0  # a structure that cannot be read
    drawn = draw_spectra(data, SimpleNamespace(fingerprint=fingerprint), OPTIONS, seed=0)
    assert len(drawn) == len(data) - 2


def test_rare_answers_and_repeated_bits_are_not_asked_for(data) -> None:
    fingerprint = np.zeros((len(data.inchikey_block), 256), np.uint8)
    bits = np.zeros((len(data.inchikey_block), 2048), np.uint8)
    bits[:, 7] = bits[:, 9] = np.arange(len(bits)) % 2  # one question, not two
    bits[::3, 11] = 1
    bits[0, 13] = 1
    fingerprint[:] = np.packbits(bits, axis=1)
    options = TargetOptions(min_train_molecules=3, min_test_molecules=2, max_bits=8)
    molecules = SimpleNamespace(fingerprint=fingerprint, smiles=data.smiles)
    found = {target.name: target for target in targets_of(data, molecules, "test", options)}
    assert found["fingerprint bits"].labels == ("bit 7", "bit 11")
    np.testing.assert_array_equal(found["fingerprint bits"].truth, bits[:, [7, 11]])
    assert found["chemical superclass"].labels == tuple(sorted(CLASSES))
    assert "chemical class" not in found  # of one class only
    strict = {t.name for t in targets_of(data, molecules, "test", replace(options, min_train_molecules=1000))}
    assert strict == {"properties"}


@pytest.mark.parametrize(
    ("smiles", "present"),
    [
        ("O=C(O)c1ccccc1O", {"carboxylic acid", "aromatic hydroxyl"}),
        ("CC(=O)OC", {"ester", "methoxyl"}),
        ("CCN", {"aliphatic amine"}),
        ("CC(=O)NC", {"amide"}),
        ("NS(=O)(=O)c1ccccc1", {"sulfonamide", "sulfur"}),
        ("O=[N+]([O-])c1ccncc1Br", {"nitro", "pyridine", "bromine"}),
        ("OCC1OC(O)C(O)C(O)C1O", {"pyranose ring", "aliphatic hydroxyl"}),
        ("c1ccc2[nH]ccc2c1", {"indole"}),
        ("FC(Cl)P", {"fluorine", "chlorine", "phosphorus"}),
    ],
)
def test_substructures_are_those_of_the_structure(smiles, present) -> None:
    has, _ = describe([smiles])
    assert {name for name, value in zip(SUBSTRUCTURES, has[0], strict=True) if value} == present


def test_properties_are_those_that_are_known() -> None:
    _, numbers = describe(["OC(=O)c1ccccc1OC(C)=O", "CCO"])
    np.testing.assert_allclose(numbers, [[1.31, 63.6, 1], [-0.001, 20.23, 0]], atol=0.01)


def test_binned_peaks_are_unit_vectors_of_roots(build) -> None:
    spectra = [
        build.spectrum(0, 0, mz=(100.2, 100.9, 200.0), intensity=(0.25, 0.25, 1.0)),
        build.spectrum(0, 1, mz=(1500.0,), intensity=(1.0,)),
    ]
    found = binned_peaks(SpectrumColumns.from_spectra(spectra))
    assert found[0, 100] == found[0, 200] == pytest.approx(np.sqrt(0.5))
    assert np.count_nonzero(found) == 2  # of the second, nothing lies in a bin


def test_a_twin_has_the_configuration_and_none_of_the_weights(split) -> None:
    own = model(IonbedModel, split)
    before = torch.get_rng_state()
    twin, again, other = (untrained_twin(own, seed) for seed in (0, 0, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert twin.config.hidden_size == own.config.hidden_size
    assert len({m.model_hash() for m in (own, twin, other)}) == 3
    assert twin.model_hash() == again.model_hash()


def test_embeddings_are_kept_by_model_and_spectra_and_a_damaged_file_is_made_anew(
    data, split, tmp_path, caplog
) -> None:
    own, other, cache = model(IonbedModel, split), model(Mute, split, hidden_size=16), tmp_path / "cache"
    first = embedded(own, data.columns, "spectra", cache, "own")
    (path,) = cache.iterdir()
    silent = model(IonbedModel, split)
    silent.embed = lambda *args, **options: pytest.fail("embedded again")
    np.testing.assert_array_equal(embedded(silent, data.columns, "spectra", cache, "own"), first)
    with pytest.raises(pytest.fail.Exception):
        embedded(silent, data.columns, "other spectra", cache, "own")
    assert embedded(other, data.columns, "spectra", cache, "other").shape == (len(data), 4)
    assert len(list(cache.iterdir())) == 2
    path.write_bytes(path.read_bytes()[:200])
    np.testing.assert_array_equal(embedded(own, data.columns, "spectra", cache, "own"), first)
    assert "made anew" in caplog.text


def test_conditions_are_those_of_the_measurement(build) -> None:
    spectra = [
        replace(build.spectrum(0, 0), collision_energy=30.0, charge=1),
        replace(build.spectrum(0, 1, polarity=-1), collision_energy=None, charge=-2),
        replace(build.spectrum(0, 2), collision_energy=0.0),
    ]
    found = condition_features(SpectrumColumns.from_spectra(spectra))
    np.testing.assert_allclose(found, [[1, 0, 0, 1, 0.3], [0, 1, 1, 0, 0], [1, 0, 0, 1, 0]], atol=1e-6)


def test_a_split_whose_folds_share_molecules_is_refused(data, split) -> None:
    shared = replace(split, shares=("molecules",))
    with pytest.raises(InputError, match="share molecules"):
        probe({"mine": model(Mute, shared)}, data, shared, OPTIONS)


def test_embeddings_that_are_not_finite_are_refused(data, split) -> None:
    own = model(Mute, split)
    own.embed = lambda *args, **options: np.full((len(data), 4), np.nan, np.float32)
    with pytest.raises(InputError, match="'own': 132 of its embeddings are not finite"):
        embedded(own, data.columns, "spectra", None, "own")


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ({}, {}, "no model is named"),
        ({BINNED_PEAKS: 1}, {}, "is the label of another row"),
        ({f"{RANDOM_WEIGHTS} (x)": 1}, {}, "is the label of another row"),
        ({"mine": []}, {}, "'mine' has no training"),
        ({"mine": 1}, {"reference": "yours"}, "reference 'yours' is no model; there are mine"),
    ],
)
def test_models_that_cannot_be_told_apart_are_refused(data, split, models, options, message) -> None:
    named = {label: model(Mute, split) if of == 1 else of for label, of in models.items()}
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(")", r"\)")):
        probe(named, data, split, replace(OPTIONS, **options))


def test_a_model_that_may_have_seen_the_molecules_is_refused_or_marked(data, split) -> None:
    unknown = {"mine": model(Mute, None)}
    with pytest.raises(InputError, match=r"may have seen the molecules.* pass --allow-other-split"):
        probe(unknown, data, split, OPTIONS)
    options = replace(OPTIONS, allow_other_split=True, zero_shot=False, random_seeds=0)
    tree = probe(unknown, data, split, options).tree
    assert "does not say" in tree["inputs"]["models"]["mine"]["exposure"]
    assert "may have seen" in markdown(tree)


@pytest.mark.parametrize("wrong", [{"max_train_spectra": 0}, {"max_spectra_per_molecule": 0}, {"random_seeds": -1}])
def test_impossible_options_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ProbeOptions(**wrong)


def test_the_command_writes_results_tables_and_a_manifest(store, split, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(run, "ProbeOptions", lambda **options: replace(OPTIONS, **options))
    model(IonbedModel, split).save_pretrained(tmp_path / "model")
    split.save(tmp_path / "split.json")
    out = tmp_path / "probe"
    words = ["probe", store, "--split", tmp_path / "split.json", "--model", f"mine={tmp_path / 'model'}",
             "--out", out, "--random-seeds", 1, "--resamples", 100, "--cache", tmp_path / "cache"]  # fmt: skip
    assert cli.main([str(word) for word in words]) == 0
    printed = capsys.readouterr().out
    tree = json.loads((out / "results.json").read_text())
    manifest = json.loads((out / "manifest.json").read_text())
    assert (tree["format"], manifest["command"]) == (1, "probe")
    assert tree["inputs"]["models"]["mine"]["source"] == [str(tmp_path / "model")]
    assert len(list((tmp_path / "cache").glob("embeddings-*.npy"))) == 2
    written = io.StringIO()
    print_tables(tree, Console(file=written, width=120))
    page = (out / "table.md").read_text()
    for task in tree["tasks"].values():
        for row in task["rows"]:
            value = row["metrics"][task["main"]]["value"]
            for text in (printed, written.getvalue(), page):
                assert f"{value:.3f}" in text and row["label"] in text
        if task["kind"] == "zero-shot":
            assert f"| random | {task['rows'][0]['metrics'][task['main']]['random']:.3f} |" in page
    possible = {*TARGETS, *QUESTIONS}
    assert tree["not asked"] and set(tree["not asked"]) == possible - set(tree["tasks"])
    for text in (printed, page):
        assert f"Not asked, since too few molecules have an answer: {', '.join(tree['not asked'])}" in " ".join(
            text.split()
        )
    assert cli.main([str(word) for word in words]) == 2  # the folder is taken
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "mine"], "--model mine: must read NAME=MODEL"),
        (["--model", "mine=MODEL", "--device", "nonsense"], "--device nonsense: is no device"),
        (["--model", "mine=nowhere/at/all"], "nowhere/at/all: is not a model folder"),
    ],
)
def test_wrong_words_are_one_clear_line(store, split, tmp_path, capsys, words, message) -> None:
    model(IonbedModel, split).save_pretrained(tmp_path / "model")
    split.save(tmp_path / "split.json")
    words = [word.replace("MODEL", str(tmp_path / "model")) for word in words]
    code = cli.main(
        ["probe", str(store), "--split", str(tmp_path / "split.json"), "--out", str(tmp_path / "p"), *words]
    )
    err = capsys.readouterr().err
    assert code == 2 and len(err.splitlines()) == 1 and message in err
    assert not (tmp_path / "p").exists()


def test_the_page_names_every_task_every_row_and_every_substructure() -> None:
    page = (Path(__file__).parents[2] / "docs" / "probe.md").read_text(encoding="utf-8")
    tasks = ["chemical superclass", "chemical class", "fingerprint bits", "substructures", "properties", *QUESTIONS]
    for text in (
        *tasks,
        NO_SPECTRUM,
        BINNED_PEAKS,
        RANDOM_WEIGHTS,
        "precursor only",
        *(name for of in METRICS.values() for name in of),
    ):
        assert text in page, text
    words = page.replace("aromatic or aliphatic hydroxyl", "aromatic hydroxyl, aliphatic hydroxyl")
    for name in SUBSTRUCTURES:
        assert name.removesuffix(" group") in words, name
    options = TargetOptions()
    for number in (
        f"at least {options.min_train_molecules} training and {options.min_test_molecules} held-out molecules",
        f"Up to {options.max_bits} bits",
        f"up to {ProbeOptions().max_spectra_per_molecule} spectra each",
        f"on {SPECTRA_TO_CHOOSE_BY} spectra of each training molecule",
        f"bins of {BIN_WIDTH:g} Da up to {MAX_MZ:,.0f} Da",
        f"{2 * len(PRECURSOR_WAVELENGTHS)} sines and cosines",
    ):
        assert number in page, number
