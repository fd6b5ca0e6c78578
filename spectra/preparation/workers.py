"""Where the tasks of `prepare` run: in this process, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, Protocol, TypeVar

from ...errors import InputError

logger = logging.getLogger("ionbed")

SCHEDULER_TIMEOUT = 10.0
"""Seconds in which a Dask scheduler has to answer."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """Runs the same task on many items."""

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``task(item)`` for each item, in order; few items are taken before their results are.

        Task, items and results must pickle.
        """


@contextmanager
def open_workers(num_workers: int | None, cluster: str | None, *, resumable: bool = False) -> Iterator[Workers]:
    """Start workers, and end them when the block is left.

    Parameters
    ----------
    num_workers : int or None
        None takes as many as this process may use cores; on a cluster, what is there.
    cluster : str or None
        None: processes of this machine (none but this one where ``num_workers`` is 1). 'local': a Dask cluster on this
        machine. 'slurm': Dask workers in Slurm jobs, as the ``jobqueue.slurm`` section of Dask's configuration says.
        Otherwise the address of a running Dask scheduler (``tcp://host:8786``). Dask's workers need to see the
        inputs and the output folder under the same paths.
    resumable : bool
        Whether the work goes on from what is done when it is started again, for the message of a worker that died.

    Raises
    ------
    InputError
        Dask is asked for and not installed, or its cluster cannot be reached or started.
    RuntimeError
        A worker process died.
    """
    if cluster is not None:
        with _dask_client(num_workers, cluster) as client:
            yield _DaskWorkers(client)
        return
    num_workers = usable_cores() if num_workers is None else num_workers
    if num_workers == 1:
        yield _ThisProcess()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker)
    try:
        yield _PoolWorkers(pool, num_workers, resumable)
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _ThisProcess:
    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return map(task, items)


class _PoolWorkers:
    def __init__(self, pool: Executor, num_workers: int, resumable: bool) -> None:
        self._pool = pool
        self._num_workers = num_workers
        self._resumable = resumable

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        try:
            yield from _in_order(lambda item: self._pool.submit(task, item), items, 2 * self._num_workers)
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process ended before its work was done (killed for memory?); run again, with fewer "
                f"--workers{': what is done is kept' if self._resumable else ''}"
            ) from None


class _DaskWorkers:
    def __init__(self, client: Any) -> None:
        self._client = client

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        from distributed import KilledWorker

        in_flight = max(4, 2 * sum(self._client.nthreads().values()))

        def submit(item: Item) -> Any:
            return self._client.submit(task, item, pure=False)

        try:
            yield from _in_order(submit, items, in_flight)
        except KilledWorker as error:
            raise RuntimeError(
                f"a Dask worker died again and again over one task ({' '.join(str(error).split())[:200]}); give the "
                "workers more memory and run again: what is done is kept"
            ) from None


def _in_order(submit: Callable[[Item], Any], items: Iterable[Item], in_flight: int) -> Iterator[Any]:
    """Yield the results of futures in order, with a bounded number of them open."""
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) > in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def _dask_client(num_workers: int | None, cluster: str) -> Iterator[Any]:
    try:
        import distributed
    except ImportError:
        raise InputError("--cluster needs Dask: pip install 'ionbed[cluster]'") from None
    try:
        if cluster == "local":
            made = distributed.LocalCluster(
                n_workers=num_workers or usable_cores(), threads_per_worker=1, dashboard_address=None
            )
        elif cluster == "slurm":
            made = _slurm_cluster(num_workers)
        elif ":" in cluster:
            made = None
        else:
            raise InputError(f"--cluster {cluster}: is neither 'local', 'slurm' nor the address of a Dask scheduler")
        client = distributed.Client(made if made is not None else cluster, timeout=SCHEDULER_TIMEOUT)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--cluster {cluster}: no Dask cluster ({reason}); check the address or the setup") from None
    try:
        if not client.nthreads():
            logger.info("waiting for the first Dask worker of cluster %s", cluster)
        client.wait_for_workers(1)
        yield client
    finally:
        client.close()
        if made is not None:
            made.close()


def _slurm_cluster(num_workers: int | None) -> Any:
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError:
        raise InputError("--cluster slurm needs dask-jobqueue: pip install 'ionbed[cluster]'") from None
    try:
        cluster = SLURMCluster()
    except ValueError:
        raise InputError(
            "--cluster slurm: cores and memory of a job are not set; name them under jobqueue.slurm in "
            "~/.config/dask/jobqueue.yaml (docs/prepare.md has an example)"
        ) from None
    _test_submission(cluster.job_script())
    cluster.scale(jobs=num_workers or 1)
    return cluster


def _test_submission(job_script: str) -> None:
    """Ask Slurm whether it would take the job: Dask itself would wait for ever for one that was refused."""
    try:
        asked = subprocess.run(
            ["sbatch", "--test-only"], input=job_script, capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        raise InputError("--cluster slurm: there is no command 'sbatch' here; start from a login node") from None
    if asked.returncode:
        reason = " ".join(asked.stderr.split())[-300:]
        raise InputError(
            f"--cluster slurm: Slurm refuses the job ({reason}); check jobqueue.slurm in Dask's configuration"
        )


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: a killed parent cannot stop its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
