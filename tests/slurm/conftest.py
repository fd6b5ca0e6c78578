"""A real Slurm of two nodes on the loopback interface, in namespaces of its own, for the time of the tests."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "unshare")

SLURM_CONF = """
ClusterName=loopback
SlurmctldHost=head(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
# A job that is put back waits until the credential of its last start has expired, two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/linear
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MessageTimeout=60
KillWait=60
NodeName=n1 NodeHostname=head NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=500
NodeName=n2 NodeHostname=head NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=500
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""

# The first process of a namespace of processes: when it ends, the kernel kills all the others. It ends when its
# standard input does, which is a pipe from the tests, however these end.
START = """
set -e
mount --bind {folder}/hosts /etc/hosts
hostname head
munged --foreground --force --key-file={folder}/munge.key --socket={folder}/munge.socket \
  --pid-file={folder}/munged.pid --log-file={folder}/munged.log --seed-file={folder}/munge.seed &
while ! test -S {folder}/munge.socket; do sleep 0.05; done
slurmctld -D -c &
slurmd -D -N n1 &
slurmd -D -N n2 &
read -r || true
"""


@dataclasses.dataclass(frozen=True)
class Slurm:
    """A running cluster of the nodes n1 and n2; its commands run in the repository."""

    folder: Path

    def run(self, *words: object, **variables: str) -> str:
        """Run a command of Slurm's and return what it prints."""
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "OMP_NUM_THREADS": "1",
                       "VENV": sys.prefix, **variables}  # fmt: skip
        done = subprocess.run(
            [str(word) for word in words], env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, script: str, *words: object, options: Sequence[str] = (), log: Path, **variables: str) -> str:
        """Submit a script of the folder ``slurm`` and return the number of its job."""
        return self.run(
            "sbatch", "--parsable", f"--output={log}", *options, f"slurm/{script}", *words, **variables
        ).strip()

    def show(self, job: str) -> dict[str, str]:
        """Return what 'scontrol show job' says of a job."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_until_ended(self, job: str, log: Path, *, seconds: float = 400) -> None:
        """Wait until a job is COMPLETED; any other end fails the test with the job's log."""
        self.wait_for(
            lambda: self.show(job)["JobState"] not in {"PENDING", "RUNNING", "COMPLETING", "REQUEUED"}, log, seconds
        )
        state = self.show(job)["JobState"]
        assert state == "COMPLETED", f"{state}\n{read(log)}"

    def wait_for(self, happened: Callable[[], bool], log: Path, seconds: float = 240) -> None:
        """Wait until something has happened; show the job's log where it does not."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, f"still waiting\n{self.run('squeue')}\n{read(log)}"
            time.sleep(0.05)


def read(path: Path) -> str:
    """Return the text of a file, '' where there is none yet."""
    return path.read_text(errors="replace") if path.is_file() else ""


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Start munged, slurmctld and two slurmd; all of it is gone when the tests are over, or killed."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"no Slurm here ({', '.join(missing)} missing): apt-get install slurm-wlm munge")
    if os.geteuid() != 0 or subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True).returncode:
        pytest.skip("no Slurm of two nodes here: it takes root and namespaces (unshare --mount --pid --uts)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: the path of a socket has at most 107 characters
    process = None
    try:
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        (folder / "hosts").write_text(f"127.0.0.1 localhost head n1 n2\n{Path('/etc/hosts').read_text()}")
        (folder / "state").mkdir()
        (folder / "slurm.conf").write_text(SLURM_CONF.format(folder=folder, ports=free_ports(3)))
        (folder / "start.sh").write_text(START.format(folder=folder))
        environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        with open(folder / "start.log", "w") as log:
            process = subprocess.Popen(
                ["unshare", *NAMESPACES, "bash", folder / "start.sh"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
            )  # fmt: skip
        cluster = Slurm(folder)
        wait_for_nodes(cluster, process)
        yield cluster
    finally:
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


NAMESPACES = ("--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")


def wait_for_nodes(cluster: Slurm, process: subprocess.Popen[bytes]) -> None:
    """Wait until both nodes can be given jobs."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if cluster.run("sinfo", "--noheader", "--format=%D %t").split() == ["2", "idle"]:
                return
        except AssertionError:
            pass  # the controller does not answer yet
        logs = "\n".join(f"{path.name}:\n{read(path)}" for path in sorted(cluster.folder.glob("*.log")))
        assert process.poll() is None and time.monotonic() < deadline, logs
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Return TCP ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
