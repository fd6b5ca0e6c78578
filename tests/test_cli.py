"""The command line: its help, its exit codes, and one clear line for every wrong word or input."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ionbed
from ionbed import cli, doctor
from ionbed.configs.loading import config_text, load_config, shipped_configs
from ionbed.errors import InputError

COMMANDS = [
    ["data"], ["data", "list"], ["data", "get"], ["prepare"], ["split"], ["simulate"], ["pretrain"], ["finetune"],
    ["runs"], ["predict"], ["card"], ["push"], ["probe"],
    ["embed"], ["index"], ["index", "build"], ["index", "info"], ["index", "append"],
    ["index", "delete"], ["index", "compact"], ["index", "verify"], ["search"], ["serve"], ["network"], ["map"],
    ["evaluate"], ["task"], ["score"], ["demo"], ["doctor"], ["configs"],
]  # fmt: skip


def wrong(capsys, *words: object) -> str:
    """Run words that are wrong; return the one line on stderr."""
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert code == 2, err
    assert out == ""
    assert len(lines) == 1, err
    assert lines[0].startswith("ionbed: ")
    return lines[0]


@pytest.fixture
def msp(tmp_path) -> Path:
    path = tmp_path / "library.msp"
    path.write_text(
        "NAME: caffeine\nPRECURSORMZ: 195.0877\nPRECURSORTYPE: [M+H]+\nIONMODE: Positive\n"
        "SMILES: CN1C=NC2=C1C(=O)N(C(=O)N2C)C\nNum Peaks: 3\n69.0447 10\n110.0713 30\n138.0662 100\n\n"
    )
    return path


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help_of_every_command_has_a_summary_and_an_example_that_fits(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Usage: ionbed" in out
    if command not in (["index"], ["data"]):
        examples = out.split("Examples\n" if "Examples\n" in out else "Examples ")[1].strip().splitlines()
        assert all(line.strip().startswith(("ionbed", "accelerate")) for line in examples if line.strip()), (
            "an example is wrapped at 80 columns; shorten it"
        )


def test_the_list_of_commands_is_complete(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f" {command[0]} " in out
    for panel in ("Data", "Training", "Search", "Evaluation", "This installation"):
        assert f"─ {panel} ─" in out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ionbed {ionbed.__version__}\n"


def test_no_words_show_the_help(capsys):
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert "Usage: ionbed" in out + err
    assert "ionbed: ;" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepar"], "did you mean 'prepare'"),
        (["prepare"], "missing"),
        (["prepare", "a.msp"], "--out"),
        (["prepare", "a.msp", "--out", "store", "--worker", "2"], "--workers"),
        (["prepare", "a.msp", "--out", "store", "--workers", "0"], "--workers"),
        (["prepare", "a.msp", "--out", "store", "--workers", "two"], "--workers"),
        (["search", "index", "queries.mgf", "--out", "hits.tsv", "--top-k", "0"], "--top-k"),
        (["index", "buld"], "build"),
        (["split", "store", "--out", "split.json", "--test", "1.5"], "--test"),
        (["configs", "a", "b"], "b"),
    ],
)
def test_wrong_words(capsys, words, message):
    line = wrong(capsys, *words)
    assert message.lower() in line.lower()
    assert "--help'" in line


def test_prepare_and_split_work(capsys, tmp_path, msp):
    assert cli.main(["prepare", str(msp), "--out", str(tmp_path / "store"), "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 read, 1 kept, 0 dropped" in err
    assert cli.main(["split", str(tmp_path / "store"), "--out", str(tmp_path / "split.json")]) == 0
    assert "(1 spectrum)" in capsys.readouterr().err
    assert json.loads((tmp_path / "split.json").read_text())["kind"] == "inchikey-block"
    assert "already exists" in wrong(capsys, "-q", "prepare", msp, "--out", tmp_path / "store", "--workers", 1)
    assert cli.main(["-q", "prepare", str(msp), "--out", str(tmp_path / "store"), "--workers", "1", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "is empty"), (b"\x89PNG\r\n\x1a\n\x00\x00", "format"), (b"a,b\n1,2\n", "format")],
)
def test_unusable_spectra_are_named(capsys, tmp_path, content, message):
    path = tmp_path / "spectra.dat"
    if content is not None:
        path.write_bytes(content)
    line = wrong(capsys, "prepare", path, "--out", tmp_path / "store", "--workers", 1)
    assert message in line
    assert str(path) in line
    assert not (tmp_path / "store").exists()
    assert [p.name for p in tmp_path.iterdir()] == (["spectra.dat"] if content is not None else [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cleaning.max_peak=3", "did you mean 'cleaning.max_peaks'"),
        ("cleaning.max_peaks=0", "min_peaks"),
        ("cleaning.max_peaks=many", "must be a whole number"),
        ("cleaning", "must read key=value"),
    ],
)
def test_wrong_options_of_prepare(capsys, tmp_path, msp, override, message):
    assert message in wrong(capsys, "prepare", msp, "--out", tmp_path / "store", "--set", override)
    assert not (tmp_path / "store").exists()


def test_wrong_words_of_clusters_and_public_data(capsys, tmp_path, msp):
    line = wrong(capsys, "prepare", msp, "--out", tmp_path / "store", "--cluster", "nonsense")
    assert "nonsense" in line and "'slurm'" in line
    assert not (tmp_path / "store").exists()
    assert "did you mean 'massbank'" in wrong(capsys, "data", "get", "MassBank", "--out", tmp_path / "data")
    assert "no such folder" in wrong(capsys, "data", "get", "massbank", "--mirror", tmp_path / "none")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (None, [], "no such file, and no shipped configuration"),
        ("trainin: 1", [], "unknown key 'trainin'"),
        ("[1, 2]", [], "must hold keys and values"),
        ("{", [], "is not YAML"),
    ],
)
def test_wrong_training_configurations(capsys, tmp_path, command, text, overrides, message):
    path = tmp_path / "my.yaml"
    if text is not None:
        path.write_text(text)
    assert message in wrong(capsys, command, path, *overrides)


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_impossible_values_of_training(capsys, tmp_path, command):
    for override, message in (
        ("training.steps=-1", "steps"),
        ("training.learning_rate=fast", "must be a number"),
        ("data.store=" + str(tmp_path / "nothing"), "no such folder"),
    ):
        line = wrong(capsys, command, f"{command}-tiny", "--set", f"output={tmp_path / 'run'}", "--set", override)
        assert message in line


def test_missing_and_foreign_folders(capsys, tmp_path, msp):
    out = tmp_path / "out"
    assert "no such folder" in wrong(capsys, "split", tmp_path / "nothing", "--out", out)
    assert "manifest" in wrong(capsys, "split", tmp_path, "--out", out)
    assert "no such folder" in wrong(capsys, "index", "info", tmp_path / "nothing")
    assert "no such folder" in wrong(capsys, "search", tmp_path / "nothing", msp, "--out", out)
    cli.main(["-q", "prepare", str(msp), "--out", str(tmp_path / "store"), "--workers", "1"])
    assert "ionbed prepare" in wrong(capsys, "index", "info", tmp_path / "store")
    assert "no such file" in wrong(capsys, "simulate", tmp_path / "nothing.smi", "--out", out)
    assert "is not a model" in wrong(capsys, "embed", msp, "--out", out, "--model", tmp_path)
    assert not out.exists()


def random_model(folder: Path, **config: object) -> Path:
    from ionbed.encoder.configuration_ionbed import IonbedConfig
    from ionbed.encoder.modeling_ionbed import IonbedModel

    IonbedModel(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, **config)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("out", [[], ["--out", "-"]])
def test_search_without_a_file_prints_the_hits(capsys, tmp_path, msp, out):
    model = random_model(tmp_path / "model")
    assert cli.main(["-q", "index", "build", str(msp), "--out", str(tmp_path / "index"), "--model", str(model)]) == 0
    assert cli.main(["search", str(tmp_path / "index"), str(msp), *out]) == 0
    shown = capsys.readouterr().out
    assert "m/z 195.0877" in shown
    assert "1.000" in shown and "C8H10N4O2" in shown
    assert not Path("-").exists()


def evaluable(tmp_path) -> tuple[Path, Path, Path]:
    """A store of molecules that share their precursor, its split, and a model trained with it."""
    smiles = ["OC1CCCCC1", "CCCCCC=O", "CC(C)CC(C)=O", "CCCCC(C)=O", "CCC(=O)CCC", "CC(=O)C(C)(C)C"]
    records = [
        f"NAME: {name}\nPRECURSORMZ: 101.0961\nPRECURSORTYPE: [M+H]+\nIONMODE: Positive\nSMILES: {name}\n"
        f"Num Peaks: 2\n{41.0 + number + 0.1 * repeat:.4f} 100\n55.0542 {10 + repeat}\n\n"
        for number, name in enumerate(smiles)
        for repeat in range(2)
    ]
    (tmp_path / "all.msp").write_text("".join(records))
    store, split = tmp_path / "123: store", tmp_path / "split.json"
    assert cli.main(["-q", "prepare", str(tmp_path / "all.msp"), "--out", str(store), "--workers", "1"]) == 0
    assert cli.main(["-q", "split", str(store), "--out", str(split), "--test", "0.5", "--validation", "0"]) == 0
    stage = {"command": "finetune", "split": json.loads(split.read_text())["hash"], "folds": ["train"]}
    return store, split, random_model(tmp_path / "model", training=[stage])


def test_evaluate_prints_the_tables_of_a_model_and_of_a_configuration(capsys, tmp_path, monkeypatch):
    from ionbed.evaluation.report import write

    monkeypatch.setattr(write, "drawings", lambda *_, **__: [])  # half of the time; reports have tests of their own
    store, split, model = evaluable(tmp_path)
    changes = ("bootstrap.resamples=100", "tasks=[library search, retrieval by mass]", "mces.max_queries=4",
               "trained_baselines={trainings: 1, max_epochs: 1, hidden_size: 8}")  # fmt: skip
    few = [word for change in changes for word in ("--set", change)]
    words = ["evaluate", model, store, "--split", split, "--out", tmp_path / "report", *few]
    assert cli.main([str(word) for word in words]) == 0
    first = capsys.readouterr()
    assert first.out.startswith("'model' ")
    assert "spectral entropy" in first.out
    assert "report.html" in first.err.splitlines()[-1]

    yaml_file = tmp_path / "my.yaml"
    assert cli.main(["configs", "evaluate"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    yaml_file.write_text(yaml.safe_dump({**tree, "dataset": str(store), "models": {"model": str(model)}}))
    assert "'split' is missing" in wrong(capsys, "evaluate", yaml_file, "--out", tmp_path / "second")
    words = ["evaluate", yaml_file, "--split", split, "--out", tmp_path / "second", *few]
    assert cli.main([str(word) for word in words]) == 0
    assert capsys.readouterr().out == first.out


def test_wrong_words_and_models_of_evaluate(capsys, tmp_path):
    store, split, _ = evaluable(tmp_path)
    out = tmp_path / "report"
    stranger = random_model(tmp_path / "stranger")
    assert "the data set" in wrong(capsys, "evaluate", stranger, "--split", split, "--out", out)
    assert "nothing.yaml: no such file" in wrong(capsys, "evaluate", tmp_path / "nothing.yaml", "--out", out)
    assert "no such file" in wrong(capsys, "evaluate", stranger, store, "--split", tmp_path / "none.json", "--out", out)
    assert "--split is missing" in wrong(capsys, "evaluate", stranger, store, "--out", out)
    line = wrong(capsys, "evaluate", stranger, store, "--split", split, "--out", out)
    assert "may have seen the molecules of the queries" in line
    assert "allow_other_split=true" in line
    assert not out.exists()


def test_every_shipped_configuration_fits_its_command_and_prints(capsys):
    from ionbed.finetune.config import FinetuneConfig
    from ionbed.finetune.labelled.config import LabelledConfig
    from ionbed.pretrain.config import PretrainConfig
    from ionbed.spectra.prepare import PrepareOptions

    schemas = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "label": LabelledConfig,
               "prepare": PrepareOptions}  # fmt: skip
    for name in shipped_configs():
        if (stage := name.split("-")[0]) in schemas:
            load_config(schemas[stage], name)
        assert cli.main(["configs", name]) == 0
        assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(config_text(name))
    assert cli.main(["configs"]) == 0
    assert capsys.readouterr().out.split() == shipped_configs()
    assert load_config(PrepareOptions, "prepare") == PrepareOptions()
    assert "no such file" in wrong(capsys, "configs", "nothing-of-that-name")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.mgf: line 3:\n  no charge"), 2, "ionbed: a.mgf: line 3: no charge"),
        (OSError(28, "No space left on device", "store"), 1, "No space left on device: 'store'"),
        (RuntimeError("two\nlines"), 1, "ionbed: RuntimeError: two lines (with --debug: the traceback)"),
        (KeyboardInterrupt(), 130, "ionbed: interrupted"),
    ],
)
def test_failures_are_one_line_and_a_traceback_only_when_asked(capsys, monkeypatch, error, code, line):
    def fail() -> list[doctor.Check]:
        raise error

    monkeypatch.setattr(doctor, "report", fail)
    assert cli.main(["doctor"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert len(err.splitlines()) == 1
    assert cli.main(["--debug", "doctor"]) == code
    assert ("Traceback" in capsys.readouterr().err) == (code != 130)


def test_logging_levels_and_that_main_leaves_no_handler_behind(capsys, monkeypatch):
    def talk() -> list[doctor.Check]:
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger("ionbed").log(level, "line")
        return []

    monkeypatch.setattr(doctor, "report", talk)
    before = list(logging.getLogger("ionbed").handlers)
    for flags, lines in ((["-q"], 1), ([], 2), (["-v"], 3)):
        assert cli.main([*flags, "doctor"]) == 0
        assert len(capsys.readouterr().err.splitlines()) == lines
    assert logging.getLogger("ionbed").handlers == before


def test_doctor_reports_and_fails_where_something_needed_is_missing(capsys, monkeypatch):
    assert cli.main(["doctor", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["works"] is True
    found = {check["name"]: check for check in result["checks"]}
    assert {"Python", "cores", "memory", "torch", "faiss-cpu", "rdkit", "GPU", "matchms", "Slurm"} <= {
        name.removesuffix(" 0") for name in found
    }
    assert "GFLOP/s" in found["matrix product, CPU"]["value"]

    monkeypatch.setattr(doctor, "report", lambda: [doctor.Check("faiss-cpu", "missing", "No module", "no search")])
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "missing" in out
    assert out.rstrip().endswith("Missing: faiss-cpu.")


def test_doctor_finds_a_module_that_does_not_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # how Python marks a module that must not be imported
    check = next(check for check in doctor.report() if check.name == "faiss-cpu")
    assert check.status == "missing"
    assert "no search" in check.consequence


def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ionbed", *words], capture_output=True, text=True, timeout=120, **options
    )


@pytest.mark.parametrize(("processes", "finalised"), [("1", True), ("2", False)])
def test_one_of_several_processes_ends_without_finalisation(processes, finalised):
    """In which a thread of gloo's may abort it; what is registered for the end is done all the same."""
    lines = [
        "import atexit, sys",
        "class Watch:",
        "    def __del__(self): print('finalised', flush=True)",
        "watch = Watch()",
        "atexit.register(print, 'registered')",
        "sys.argv = ['ionbed', 'configs', 'no such name']",
        "from ionbed.cli import run",
        "run()",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env={**os.environ, "WORLD_SIZE": processes}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stdout.split() == ["registered", *(["finalised"] if finalised else [])]


def test_help_starts_at_once_in_a_process_of_its_own():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # processor time: other work on the machine is not our cost
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.7


def test_exit_codes_in_a_process_of_its_own(tmp_path):
    done = run("prepare", str(tmp_path / "nothing.mgf"), "--out", str(tmp_path / "store"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_closed_pipe_ends_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ionbed", "configs", "prepare"],
            stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_training_parts_from_the_other_processes(tmp_path, monkeypatch):
    """Or else NCCL complains at the end of every process."""
    import torch.distributed

    from ionbed.pretrain import run

    def pretrain(config, *, resume, stop):
        store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        return tmp_path / "model"

    monkeypatch.setattr(run, "pretrain", pretrain)
    try:
        assert cli.main(["pretrain", "pretrain-tiny", "--set", "data.store=s", "--set", f"output={tmp_path}"]) == 0
        assert not torch.distributed.is_initialized()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
