"""Objectives over spectra of one run: what is compared with what, that it is learned, and that processes agree."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import ionbed
from ionbed.artifacts import sha256_of_file, write_manifest
from ionbed.configs.loading import load_config
from ionbed.pretrain.augmentation import ISOTOPES, PRECURSOR_MARGIN
from ionbed.pretrain.config import ObjectivesConfig, PretrainConfig
from ionbed.pretrain.data import TrainingSpectra
from ionbed.pretrain.groups import collate_group, pack_groups
from ionbed.pretrain.neighbours import NeighbourBatch, neighbour_count, neighbour_loss
from ionbed.pretrain.objective import MaskedPeakObjective
from ionbed.pretrain.retention_order import OrderBatch, order_count, order_loss
from ionbed.pretrain.run import pretrain
from ionbed.pretrain.task import MaskedPeakTask
from ionbed.spectra.pairs import PAIRS_FILE, RUNS_FILE, PairOptions, describe_run, pairs_of_run, read_pairs, read_runs
from ionbed.spectra.prepare import prepare
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import SHARD_NAME, Store, table_from_spectra, write_shard

DATA = os.environ.get("IONBED_DATA", "")
RUNS, COMPOUNDS, SCANS = 5, 150, 3
BOTH = ("objectives.neighbours=1", "objectives.retention_order=1")
SMALL = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=4", "model.num_mz_wavelengths=16",
    "training.steps=6", "training.batch_tokens=1200", "training.micro_batch_tokens=600", "training.warmup_steps=1",
    "training.log_every=1", "training.validate_every=3", "training.checkpoint_every=2", "training.threads=1",
    "model.max_peaks=24", "objectives.group_spectra=8", "objectives.validation_runs=0.2", "objectives.share=0.25",
    "data.validation_spectra=100",
)  # fmt: skip


FRAGMENTS = np.linspace(60.05, 400.3, 24)
MARKERS = np.array([41.04, 55.05, 69.07])


def runs_of_spectra(seed: int = 0) -> list[list[Spectrum]]:
    """Return made-up runs: of each compound a few noisy scans in a row, eluting later the stronger its markers are.

    A compound has eight of the `FRAGMENTS`, most of which show in a scan, and its precursor survives.
    """
    rng = np.random.default_rng(seed)
    runs = []
    for run in range(RUNS):
        scans = []
        for compound in range(COMPOUNDS):
            late, precursor, own = rng.random(), rng.uniform(450, 700), rng.choice(FRAGMENTS, 8, replace=False)
            for _ in range(SCANS):
                shown = own[rng.random(len(own)) < 0.9]
                mz = np.concatenate([MARKERS, shown, [precursor]])
                intensity = np.concatenate([np.full(3, 0.05 + 0.8 * late), rng.uniform(0.2, 0.6, len(shown)), [1.0]])
                order = np.argsort(mz)
                scans.append(
                    Spectrum(
                        spectrum_id=f"R{run}-{compound}-{len(scans)}",
                        source_file=f"run-{run}.mzML",
                        precursor_mz=precursor * (1 + rng.normal(0, 1e-6)),
                        mz=(mz[order] * (1 + rng.normal(0, 1e-6, len(mz)))).astype(np.float32),
                        intensity=intensity[order].astype(np.float32),
                        polarity=1,
                        charge=1,
                        ms_level=2,
                        retention_time=float(60 + 600 * late + rng.uniform(0, 8)),
                    )
                )
        runs.append(sorted(scans, key=lambda scan: scan.retention_time))
    return runs


def write_store(folder: Path, runs: list[list[Spectrum]]) -> Path:
    """Write a store as 'ionbed prepare' does, with its runs and pairs."""
    folder.mkdir()
    name = SHARD_NAME.format(0)
    spectra = [scan for run in runs for scan in run]
    write_shard(table_from_spectra(spectra), folder / name)
    described, pairs, first = [], [], 0
    for run in runs:
        values = {
            key: np.array([getattr(scan, key) for scan in run])
            for key in ("precursor_mz", "retention_time", "polarity", "charge")
        }
        described.append(describe_run(run[0].source_file, first, values["retention_time"], values["polarity"]))
        energy = np.full(len(run), np.nan)
        pairs.append(pairs_of_run(**values, collision_energy=energy, first_row=first, options=PairOptions()))
        first += len(run)
    entries = {}
    for kind, file, tables in (("runs", RUNS_FILE, described), ("pairs", PAIRS_FILE, pairs)):
        pq.write_table(pa.concat_tables(tables), folder / file)
        entries[kind] = {"file": file, "rows": sum(map(len, tables)), "sha256": sha256_of_file(folder / file)}
    shard = {"file": name, "spectra": len(spectra), "sha256": sha256_of_file(folder / name)}
    counts = {"read": len(spectra), "kept": len(spectra), "dropped": {}, "repaired": {}}
    tree = {"command": "prepare", "inputs": [], "options": {}, "counts": counts, "shards": [shard], "pairs": entries}
    write_manifest(folder, tree)
    return folder


@pytest.fixture(scope="module")
def run_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("data") / "store", runs_of_spectra())


def config_for(store: Path, output: Path, *changes: str) -> PretrainConfig:
    words = [*SMALL, *BOTH, f"data.store={store}", f"output={output}", *changes]
    return load_config(PretrainConfig, "pretrain-tiny", words)


@pytest.fixture(scope="module")
def make_task(run_store, tmp_path_factory):
    arrow = tmp_path_factory.mktemp("arrow") / "arrow"

    def make(*changes: str) -> MaskedPeakTask:
        config = config_for(run_store, arrow.parent / "run", *changes)
        return MaskedPeakTask(config, TrainingSpectra(config.data, arrow))

    return make


def micro_batches_of(task: MaskedPeakTask, batch: np.ndarray, epoch: int, processes: int) -> list:
    return [m for p in range(processes) for m in task.micro_batches(batch, epoch, p, processes)]


def drawn_groups(task: MaskedPeakTask, monkeypatch, *where: int) -> dict[str, list[tuple[int, ...]]]:
    """Return the rows of the groups of all processes that `micro_batches_of` collates."""
    groups: dict[str, list[tuple[int, ...]]] = {}
    with monkeypatch.context() as patch:
        for name, source in task.group_objectives.sources.items():

            def batch(parts, spectra, name=name, batch=source.batch):
                groups.setdefault(name, []).extend(tuple(part.tolist()) for part in parts)
                return batch(parts, spectra)

            patch.setattr(source, "batch", batch)
        number, epoch, processes = where
        micro_batches_of(task, task.epoch_batches(epoch)[number], epoch, processes)
    return {name: sorted(found) for name, found in groups.items()}


def test_groups_do_not_depend_on_processes_and_micro_batches(make_task, monkeypatch):
    one = drawn_groups(make_task(), monkeypatch, 0, 0, 1)
    assert {name: len(found) >= 2 for name, found in one.items()} == {"neighbours": True, "retention_order": True}
    for processes, changes in ((2, ()), (3, ("training.micro_batch_tokens=250",))):
        assert drawn_groups(make_task(*changes), monkeypatch, 0, 0, processes) == one
    assert drawn_groups(make_task(), monkeypatch, 1, 0, 1) != one
    assert drawn_groups(make_task(), monkeypatch, 0, 1, 1) != one
    assert drawn_groups(make_task("training.seed=7"), monkeypatch, 0, 0, 1) != one


def test_a_group_is_of_one_run_and_of_pairs_of_the_store(make_task, run_store, monkeypatch):
    task = make_task()
    pairs = {tuple(pair.values()) for pair in read_pairs(run_store).select(["row_a", "row_b"]).to_pylist()}
    mz = Store(run_store).table(["precursor_mz"])["precursor_mz"].to_numpy()
    for number in range(3):
        for name, groups in drawn_groups(task, monkeypatch, number, 0, 1).items():
            for group in groups:
                assert len({row // (COMPOUNDS * SCANS) for row in group}) == 1
                if name == "neighbours":
                    firsts = np.sort(mz[list(group[::2])])
                    assert set(zip(group[::2], group[1::2], strict=True)) <= pairs
                    assert (np.diff(firsts) / firsts[1:] > 50e-6).all()  # each pair of another precursor


def test_runs_held_out_are_validated_and_not_trained_on(make_task, run_store, monkeypatch):
    task = make_task()
    runs = read_runs(run_store)
    held = np.flatnonzero(task.group_objectives.runs.held_out)
    assert len(held) == 1
    first = runs["first_row"][int(held[0])].as_py()
    held_rows = set(range(first, first + COMPOUNDS * SCANS))
    trained = {row for batch in task.epoch_batches(0) for row in batch.tolist()}
    assert len(trained) == (RUNS - 1) * COMPOUNDS * SCANS and not trained & held_rows
    for number in range(len(task.epoch_batches(0))):
        groups = drawn_groups(task, monkeypatch, number, 0, 1).values()
        assert not {row for found in groups for group in found for row in group} & held_rows
    batches = task.validation_batches()
    assert batches and {row for batch in batches for row in batch.tolist()} <= held_rows
    kinds = {type(m) for batch in batches for m in task.micro_batches(batch, 0, 0, 1)}
    assert kinds == {NeighbourBatch, OrderBatch}
    again = make_task("training.seed=9")
    assert np.array_equal(again.group_objectives.held_out, task.group_objectives.held_out)


def test_rows_outside_the_folds_are_in_no_group(run_store, tmp_path, monkeypatch):
    split = tmp_path / "split.json"
    ids = Store(run_store).table(["spectrum_id"])["spectrum_id"].to_pylist()
    folds = {name: ("train", "train", "test")[number % 3] for number, name in enumerate(ids)}
    ionbed.spectra.split.Split("made-up", 0, folds, unit="spectrum").save(split)
    config = config_for(run_store, tmp_path / "run", f"data.split={split}")
    task = MaskedPeakTask(config, TrainingSpectra(config.data, tmp_path / "arrow"))
    for number in range(3):
        groups = drawn_groups(task, monkeypatch, number, 0, 1)
        rows = {row for found in groups.values() for group in found for row in group}
        assert rows and all(row % 3 != 2 for row in rows)


def test_pairs_and_the_contrast_are_those_of_a_plain_loop(make_task):
    task = make_task("objectives.coelution_time=100")
    time = task.group_objectives.runs.retention_time
    source = task.group_objectives.sources["neighbours"]
    groups = [source.draw(np.random.default_rng(number)) for number in (4, 5)]
    rows = np.concatenate(groups)
    batch = source.batch(groups, _collated(task, rows))
    vectors = torch.nn.functional.normalize(torch.randn(16, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    total, counted, others = 0.0, 0, 0
    for i in range(16):
        same_group = [j for j in range(16) if j // 8 == i // 8 and j // 2 != i // 2]
        negatives = [j for j in same_group if abs(time[rows[i]] - time[rows[j]]) > 100]
        others += len(same_group) - len(negatives)
        if negatives:
            logits = torch.stack([vectors[i] @ vectors[j] / 0.1 for j in (i ^ 1, *negatives)])
            total, counted = total - float(logits.log_softmax(0)[0]), counted + 1
    assert counted > 0 and others > 0
    assert neighbour_count(batch) == counted
    assert float(neighbour_loss(vectors, batch, 0.1)) == pytest.approx(total, rel=1e-5)


def test_the_order_is_that_of_a_plain_loop(make_task):
    task = make_task(
        "objectives.neighbours=0", "objectives.min_time_difference=60", "objectives.min_precursor_ppm=100000"
    )
    runs, source = task.group_objectives.runs, task.group_objectives.sources["retention_order"]
    groups = [source.draw(np.random.default_rng(number)) for number in (4, 5)]
    rows = np.concatenate(groups)
    batch = source.batch(groups, _collated(task, rows))
    places = torch.randn(16, generator=torch.Generator().manual_seed(0))
    total, counted, near = 0.0, 0, 0
    for i in range(16):
        for j in range(16):
            time, mz = runs.retention_time[rows[[i, j]]], runs.precursor_mz[rows[[i, j]]]
            if i // 8 == j // 8 and time[1] - time[0] >= 60:
                if abs(mz[0] - mz[1]) > 0.1 * mz.max():
                    total -= float(torch.sigmoid(places[j] - places[i]).log())
                    counted += 1
                else:
                    near += 1
    assert near > 0 and 8 < counted == order_count(batch)
    assert float(order_loss(places, batch)) == pytest.approx(total, rel=1e-5)


def _collated(task: MaskedPeakTask, rows: np.ndarray, *, epoch: int = 0, **changes: float):
    config = task.config
    objectives = replace(config.objectives, **changes)
    columns = task.spectra.columns(rows)
    return collate_group(columns, rows, task.encoder.config, objectives, config.masking, 0, epoch)


def test_a_hidden_precursor_does_not_show(make_task):
    task = make_task()
    rows = task.rows[:40]
    seen, hidden = (_collated(task, rows, hide_precursor=p, drop_peaks=0.0) for p in (0.0, 1.0))
    precursor = torch.from_numpy(task.spectra.precursor_mz[rows])[:, None]

    def near(batch):
        peaks = batch.mask_BL[:, 1:]
        mz = batch.mz_BL[:, 1:]
        return ((mz > precursor - PRECURSOR_MARGIN) & (mz <= precursor + ISOTOPES) & peaks).any(1)

    assert near(seen).all() and not near(hidden).any()
    assert not seen.hidden_mz_BL.any() and hidden.hidden_mz_BL[:, 0].all() and not hidden.hidden_mz_BL[:, 1:].any()
    moved = replace(hidden, mz_BL=torch.cat([hidden.mz_BL[:, :1] + 5, hidden.mz_BL[:, 1:]], dim=1))
    with torch.no_grad():
        vectors = [task.encoder.embed_batch(batch) for batch in (hidden, moved, seen)]
    assert torch.equal(vectors[0], vectors[1]) and not torch.allclose(vectors[0], vectors[2])
    some = _collated(task, rows, hide_precursor=0.5).hidden_mz_BL[:, 0]
    assert 0 < some.sum() < len(rows)


def test_every_parameter_has_a_gradient_in_every_micro_batch(make_task):
    for changes in ((), ("objectives.neighbours=0",), ("objectives.retention_order=0",)):
        task = make_task(*changes)
        kinds = set()
        for micro_batch in micro_batches_of(task, task.epoch_batches(0)[0], 0, 1):
            task.module.zero_grad(set_to_none=True)
            terms = task.module(micro_batch)
            assert terms.keys() == task.weights.keys() == task.counts(micro_batch).keys()
            sum(terms.values()).backward()
            assert [name for name, p in task.module.named_parameters() if p.grad is None] == []
            kinds.add(type(micro_batch))
        assert len(kinds) == 1 + len(task.config.objectives.names)


@pytest.mark.parametrize("compiled", ["false", "true"])
def test_the_budgets_hold_with_the_groups(make_task, compiled):
    task = make_task("training.batch_tokens=4000", f"training.compile={compiled}")
    steps = [micro_batches_of(task, batch, 0, 2) for batch in task.epoch_batches(0)]
    spectra = [getattr(micro_batch, "spectra", micro_batch) for step in steps for micro_batch in step]
    assert all(batch.num_slots <= 600 for batch in spectra) or compiled == "true"
    tokens = [sum(m.num_tokens for m in step) for step in steps[:-1]]
    assert 3000 < np.mean(tokens) <= 4400
    groups = sum(m.num_tokens for step in steps for m in step if isinstance(m, (NeighbourBatch, OrderBatch)))
    assert 0.4 < groups / sum(m.num_tokens for step in steps for m in step) < 0.6
    if compiled == "true":
        shapes = {
            m.spectra.mask_BL.shape for step in steps for m in step if isinstance(m, (NeighbourBatch, OrderBatch))
        }
        assert len(shapes) <= len(task.lengths) <= 8


def test_what_fills_up_a_shape_changes_no_loss(make_task):
    task = make_task("model.dropout=0")
    fixed = make_task("training.compile=true", "model.dropout=0")
    batch = task.epoch_batches(0)[0]
    sums = []
    with torch.no_grad():
        for each in (task, fixed):
            groups = each.group_objectives.micro_batches(batch, 0, 0, 1, _shapes(each))
            terms = [each.module(m) for m in groups]
            sums.append([sum(float(t[n]) for t in terms) for n in ("neighbours", "retention_order")])
    assert sums[0] == pytest.approx(sums[1], rel=1e-5) and min(sums[0]) > 0


def _shapes(task: MaskedPeakTask):
    from ionbed.encoder.batching import FixedShapes

    return None if task.lengths is None else FixedShapes.of_run(task.lengths, task.masked_tokens, 600, 1)


def test_packing_keeps_groups_whole_and_within_the_budget():
    rng = np.random.default_rng(0)
    num_tokens = rng.integers(2, 60, 500)
    groups = [rng.integers(0, 500, rng.integers(2, 9)) for _ in range(40)]
    packed = pack_groups(groups, num_tokens, lambda longest: 2000 // longest)
    assert sorted(id(g) for part in packed for g in part) == sorted(map(id, groups))
    sizes = [sum(map(len, part)) * max(num_tokens[g].max() for g in part) for part in packed]
    assert max(sizes) <= 2000 and len(packed) < 20


@pytest.fixture(scope="module")
def whole_run(run_store, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(config_for(run_store, output))
    return output


def log_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def terms_of(output: Path) -> list[list[float]]:
    return [[e[n] for n in ("loss", "neighbours", "retention_order")] for e in log_of(output) if "loss" in e]


def test_a_resumed_run_gives_the_same_bits(whole_run, run_store, tmp_path, killed_after_checkpoint):
    output = tmp_path / "stopped"
    with killed_after_checkpoint():
        pretrain(config_for(run_store, output))
    pretrain(config_for(run_store, output, "training.loader_workers=1"), resume="auto")
    assert terms_of(output) == terms_of(whole_run)
    mine, theirs = (load_file(run / "model" / "model.safetensors") for run in (output, whole_run))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert {"validation_neighbours", "validation_retention_order"} <= log_of(output)[-1].keys()
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["training"]["spectra"] == (RUNS - 1) * COMPOUNDS * SCANS


def test_two_processes_give_the_loss_of_one(whole_run, run_store, tmp_path, torchrun):
    output = tmp_path / "two"
    words = [*SMALL, *BOTH, f"data.store={run_store}", f"output={output}"]
    sets = [word for item in words for word in ("--set", item)]
    done = torchrun("-m", "ionbed", "pretrain", "pretrain-tiny", *sets)
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "manifest.json").read_text())["processes"] == 2
    np.testing.assert_allclose(terms_of(output), terms_of(whole_run), atol=1e-5)
    one, two = (
        [[e[k] for k in sorted(e) if k.startswith("validation_")] for e in log_of(run) if "validation_loss" in e]
        for run in (whole_run, output)
    )
    assert len(one) == 2
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_other_pairs_are_not_gone_on_with(whole_run, run_store, tmp_path):
    store, output = tmp_path / "store", tmp_path / "run"
    shutil.copytree(run_store, store)
    shutil.copytree(whole_run, output)
    pairs = read_pairs(store)
    pq.write_table(pairs.slice(0, len(pairs) - 1), store / PAIRS_FILE)
    with pytest.raises(ionbed.InputError, match="not the file that the manifest describes"):
        pretrain(config_for(store, output), resume="auto")
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["pairs"]["pairs"]["sha256"] = sha256_of_file(store / PAIRS_FILE)
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ionbed.InputError, match=r"other values of runs\.pairs\.sha256"):
        pretrain(config_for(store, output), resume="auto")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("objectives.neighbours=-1", "neighbours is -1.0"),
        ("objectives.share=0.5", "leave something for masked peaks"),
        ("objectives.share=0", "must be above 0"),
        ("objectives.group_spectra=7", "even number"),
        ("objectives.temperature=0", "temperature is 0.0"),
        ("objectives.hide_precursor=2", "hide_precursor is 2.0"),
        ("objectives.validation_runs=1", "no run would be left"),
        ("objectives.min_time_difference=0", "min_time_difference is 0.0"),
        ("objectives.min_time_difference=5000", "no spectra 5000 s apart; lower"),
        ("objectives.min_precursor_ppm=1000000", "no pairs of more than one precursor"),
        ("training.micro_batch_tokens=100", "8 spectra of up to 25 tokens are 200; raise training.micro_batch_tokens"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(run_store, tmp_path, change, words):
    with pytest.raises(ionbed.InputError, match=words) as caught:
        pretrain(config_for(run_store, tmp_path / "run", change))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("change", "file"), [("objectives.retention_order=0", RUNS_FILE), ("", PAIRS_FILE)])
def test_a_store_without_runs_or_pairs_is_refused(run_store, tmp_path, change, file):
    store = tmp_path / "store"
    shutil.copytree(run_store, store)
    (store / file).unlink()
    with pytest.raises(
        ionbed.InputError, match=rf"{file}: is missing; .*; or set objectives.neighbours.* to 0"
    ) as caught:
        pretrain(config_for(store, tmp_path / "run", *filter(None, [change])))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_what_is_off_needs_no_runs_and_changes_nothing(store, tmp_path):
    config = config_for(store, tmp_path / "run", "objectives.neighbours=0", "objectives.retention_order=0")
    task = MaskedPeakTask(config, TrainingSpectra(config.data, tmp_path / "arrow"))
    assert isinstance(task.module, MaskedPeakObjective)
    assert ObjectivesConfig().names == ()
    pretrain(config)
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000006" / "state.json").read_text())
    assert "objectives" not in state["identity"] and "runs" not in state["identity"]


def validation_of(task: MaskedPeakTask, term: str) -> float:
    """Return the mean loss of a term over the groups of the runs held out."""
    loss = count = 0.0
    with torch.no_grad():
        for batch in task.validation_batches():
            for micro_batch in task.micro_batches(batch, 0, 0, 1):
                loss += float(task.module(micro_batch)[term])
                count += task.counts(micro_batch)[term]
    return loss / count


LEARNING = (
    "training.steps=120", "training.validate_every=120", "training.checkpoint_every=120", "training.warmup_steps=30",
    "training.batch_tokens=2000", "training.micro_batch_tokens=2000", "training.learning_rate=0.003",
    "objectives.share=0.8", "objectives.drop_peaks=0", "objectives.coelution_time=0",
)  # fmt: skip


@pytest.mark.parametrize(
    ("term", "changes"),
    [
        ("retention_order", ("objectives.neighbours=0", "objectives.retention_order=5", "objectives.hide_precursor=0")),
        ("neighbours", ("objectives.retention_order=0", "objectives.neighbours=5", "objectives.hide_precursor=1")),
    ],
)
def test_what_is_learned_holds_on_a_run_that_was_not_seen(make_task, run_store, tmp_path, term, changes):
    untrained = validation_of(make_task(*LEARNING, *changes), term)
    pretrain(config_for(run_store, tmp_path / "run", *LEARNING, *changes))
    assert untrained > 0.6
    assert log_of(tmp_path / "run")[-1][f"validation_{term}"] < 0.6 * untrained


@pytest.mark.skipif(not DATA, reason="IONBED_DATA does not name the folder of real data")
def test_the_contrast_is_learned_from_real_runs_beside_the_order(tmp_path):
    raw = Path(DATA) / "raw"
    prepare([raw / "171103_PMA_TK_QC_04-4to5min.mzML", raw / "DOM_b.mzXML"], tmp_path / "store")
    config = config_for(
        tmp_path / "store", tmp_path / "run", *LEARNING, "model.max_peaks=16", "training.log_every=20",
        "objectives.validation_runs=0", "objectives.min_time_difference=10", "objectives.share=0.45",
        "objectives.neighbours=5",
    )  # fmt: skip
    pretrain(config)
    log = [entry for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert log[-1]["neighbours"] < 0.85 * log[0]["neighbours"]
    assert 0.3 < log[-1]["retention_order"] < 0.8  # a minute of a run says little of the order
