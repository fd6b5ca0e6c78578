"""What the job scripts decide, with stand-ins for the programs they start: what they run, and when they go back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import REPOSITORY

SCRIPTS = sorted(path.name for path in (REPOSITORY / "slurm").glob("*.sbatch"))
WORDS = {
    "prepare.sbatch": ["a.msp", "b.msp", "--out", "store"],
    "pretrain.sbatch": ["pretrain-base", "runs/base", "--set", "data.store=my store"],
    "finetune.sbatch": ["finetune-base", "runs/tuned"],
    "embed.sbatch": ["store", "e.parquet", "--model", "runs/base/model"],
    "index.sbatch": ["build", "store", "--out", "library", "--embeddings", "e.parquet"],
}
"""What each script is given."""
SHOWN = {
    "prepare.sbatch": "ionbed prepare a.msp b.msp --out store",
    "pretrain.sbatch": r"--module ionbed pretrain pretrain-base --set data.store=my\ store --set output=runs/base "
    "--resume auto",
    "finetune.sbatch": "--module ionbed finetune finetune-base --set output=runs/tuned --resume auto",
    "embed.sbatch": "srun ionbed embed store --out e.parquet --model runs/base/model",
    "index.sbatch": "srun ionbed index build store --out library --embeddings e.parquet",
}
"""What its dry run shows of the command."""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of stand-ins: srun runs its command, scontrol notes what it is told; a test adds its own."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    stand_in(folder, "srun", 'while [[ $1 == --* ]]; do shift; done\nexec "$@"')
    stand_in(folder, "scontrol", f'[ "$1" = show ] && echo n1 || echo "$@" >> {tmp_path}/scontrol.txt')
    return folder


def stand_in(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def environment(programs: Path, **variables: str) -> dict[str, str]:
    """Return the variables of a job, none of the machine's own Slurm among them."""
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "SLURMD_NODENAME": "n1",
    }
    path = f"{programs}:{os.defpath}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "VENV": str(programs.parent), **job, **variables}


def run(programs: Path, script: str, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", REPOSITORY / "slurm" / script, *map(str, words)],
        env=environment(programs, **variables), cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def requeued(programs: Path) -> bool:
    notes = programs.parents[1] / "scontrol.txt"
    return notes.exists() and notes.read_text() == "requeue 7\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_prints_the_command_and_runs_nothing(script):
    done = subprocess.run(
        ["bash", f"slurm/{script}", "--dry-run", *WORDS[script]],
        env={"PATH": os.defpath}, cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1 and SHOWN[script] in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_words_are_told(script, programs):
    for words, variables in (([], {}), (WORDS[script], {"SLURM_JOB_ID": ""})):
        done = run(programs, script, *words, **variables)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "usage: sbatch" in done.stderr or "--dry-run" in done.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in (REPOSITORY / "slurm").glob("*.s*")))
def test_shellcheck_finds_nothing(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    words = ["shellcheck", "--external-sources", f"slurm/{script}"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


TRAINING = """
echo "$@" > {output}/words.txt
case {does} in
  finish) echo '{{}}' > {output}/manifest.json ;;
  save) mkdir -p {output}/checkpoints; echo step-00000020 > {output}/checkpoints/latest ;;
  stop) echo '{{"step": 20, "signal": "SIGUSR1"}}' > {output}/stopped.json ;;
esac
exit {code}
"""


@pytest.mark.parametrize(
    ("does", "code", "expected_code", "goes_back"),
    [("finish", 0, 0, False), ("finish", 1, 0, False), ("save", 1, 0, True), ("stop", 1, 0, True),
     ("fail", 1, 1, False)],
)  # fmt: skip
def test_files_decide_whether_a_training_job_goes_back(programs, tmp_path, does, code, expected_code, goes_back):
    stand_in(programs, "torchrun", TRAINING.format(output=tmp_path, does=does, code=code))
    done = run(programs, "pretrain.sbatch", "my.yaml", tmp_path, "--set", "a.b=c d", SLURM_RESTART_COUNT="2")
    assert done.returncode == expected_code, done.stderr
    assert requeued(programs) == goes_back
    words = (tmp_path / "words.txt").read_text()
    assert "--local-addr n1 --nnodes 1 --nproc-per-node 1" in words and "--rdzv-id 7.2" in words
    assert f"ionbed pretrain my.yaml --set a.b=c d --set output={tmp_path} --resume auto" in words
    if does == "finish":
        (tmp_path / "words.txt").unlink()
        assert run(programs, "pretrain.sbatch", "my.yaml", tmp_path).returncode == 0
        assert not (tmp_path / "words.txt").exists()  # it is finished already
    else:  # an attempt that got no further than the one before
        (tmp_path / "scontrol.txt").unlink(missing_ok=True)
        done = run(programs, "pretrain.sbatch", "my.yaml", tmp_path)
        assert (done.returncode, requeued(programs)) == (1, False)
        assert "not put back" in done.stderr


def test_the_cores_of_a_node_are_shared_by_its_processes(programs, tmp_path):
    for cpus, processes, threads in (("8", "2", "4"), ("1", "4", "1"), ("", "", "1")):
        stand_in(programs, "torchrun", f"echo $OMP_NUM_THREADS $SRUN_CPUS_PER_TASK > {tmp_path}/threads.txt; exit 1")
        given = {"SLURM_CPUS_PER_TASK": cpus, "SLURM_GPUS_ON_NODE": processes} if cpus else {}
        run(programs, "finetune.sbatch", "my.yaml", tmp_path / "run", **given)
        assert (tmp_path / "threads.txt").read_text().split() == [threads, *([cpus] if cpus else [])]


def test_a_container_is_entered_on_each_node(programs, tmp_path):
    stand_in(programs, "apptainer", f'echo "$1 $2 $3" > {tmp_path}/apptainer.txt; shift 3; exec "$@"')
    stand_in(programs, "torchrun", TRAINING.format(output=tmp_path, does="finish", code=0))
    done = run(programs, "pretrain.sbatch", "my.yaml", tmp_path, CONTAINER="/images/ionbed.sif")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "apptainer.txt").read_text() == "exec --nv /images/ionbed.sif\n"


def test_a_site_file_of_ones_own_is_read(programs, tmp_path):
    (tmp_path / "site.sh").write_text("export GREETING=hello\n")
    stand_in(programs, "ionbed", f"echo $GREETING > {tmp_path}/greeting.txt")
    assert run(programs, "embed.sbatch", "store", "e.parquet", SITE=f"{tmp_path}/site.sh").returncode == 0
    assert (tmp_path / "greeting.txt").read_text() == "hello\n"


def test_a_task_of_an_array_embeds_its_part(programs):
    stand_in(programs, "ionbed", 'echo "$@"')
    array = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "16"}
    done = run(programs, "embed.sbatch", *WORDS["embed.sbatch"], SLURM_ARRAY_TASK_COUNT="16", **array)
    assert done.stdout == "embed store --out e.parquet --model runs/base/model --part 2/16\n"
    done = run(programs, "embed.sbatch", *WORDS["embed.sbatch"], SLURM_ARRAY_TASK_COUNT="2", **array)
    assert done.returncode == 2 and "PARTS=16" in done.stderr
    done = run(programs, "embed.sbatch", *WORDS["embed.sbatch"], SLURM_ARRAY_TASK_COUNT="2", PARTS="16", **array)
    assert "--part 2/16" in done.stdout


def test_a_task_of_an_array_appends_its_part_and_builds_nothing(programs):
    stand_in(programs, "ionbed", 'echo "$@"')
    array = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "16"}
    array["SLURM_ARRAY_TASK_COUNT"] = "16"
    done = run(programs, "index.sbatch", "append", "library", "store", **array)
    assert done.stdout == "index append library store --part 2/16\n"
    done = run(programs, "index.sbatch", *WORDS["index.sbatch"], **array)
    assert done.returncode == 2 and "only 'append' goes in parts" in done.stderr
    assert run(programs, "index.sbatch", "append", "library").returncode == 2


@pytest.mark.parametrize(("restarts", "goes_back"), [("0", True), ("9", True), ("10", False)])
def test_preparing_goes_back_when_its_time_is_up(programs, tmp_path, restarts, goes_back):
    stand_in(programs, "ionbed", f"touch {tmp_path}/started; exec sleep 60")
    words = ["bash", REPOSITORY / "slurm" / "prepare.sbatch", "x.msp", "--out", "store"]
    variables = environment(programs, SLURM_RESTART_COUNT=restarts)
    process = subprocess.Popen(words, env=variables, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == (0 if goes_back else 128 + signal.SIGTERM)
    assert requeued(programs) == goes_back


def test_preparing_ends_as_the_command_does(programs):
    for code in (0, 1, 2):
        stand_in(programs, "ionbed", f"exit {code}")
        assert run(programs, "prepare.sbatch", "x.msp", "--out", "store").returncode == code
    assert not requeued(programs)
