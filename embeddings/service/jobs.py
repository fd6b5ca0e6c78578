"""Batch jobs: a file too large to be answered at once is searched in the background; its hits are fetched later."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from ...errors import InputError
from ..queries import Query
from ..search import HitRow
from ..search_options import SearchOptions
from ..structure_search import StructureHitRow
from .failures import RequestError
from .index_state import IndexState
from .job_hits import JobHits
from .metrics import Metrics
from .models import JobModel, JobState
from .searching import Answer
from .settings import ServiceLimits

logger = logging.getLogger("ionbed")

_SECONDS_BETWEEN_LOOKS = 60.0
QUERIES_AT_ONCE = 32
"""Of one job; requests that come meanwhile have their turn in between."""

ReadQueries = Callable[[Path, int], Awaitable[list[Query]]]
SearchQueries = Callable[[IndexState, list[Query], SearchOptions], Awaitable[list[Answer]]]


@dataclass
class Job:
    """One file that is searched in the background.

    Attributes
    ----------
    id : str
        That nobody can guess.
    path : Path
        The upload, in a folder of its own.
    options : SearchOptions
    hits : JobHits
    index : IndexState
        As it was when the job was taken: what is committed meanwhile is not for it.
    state : str
    num_queries : int or None
        Known once the file was read.
    num_done : int
    """

    id: str
    path: Path
    options: SearchOptions
    hits: JobHits
    index: IndexState
    state: JobState = "queued"
    num_queries: int | None = None
    num_done: int = 0
    error: str | None = None
    began: float | None = None
    ended: float | None = None

    def model(self, kept_seconds: float) -> JobModel:
        """Return what a client is told."""
        now = time.monotonic()
        return JobModel(
            id=self.id,
            state=self.state,
            queries=self.num_queries,
            done=self.num_done,
            error=self.error,
            seconds=0.0 if self.began is None else round((self.ended or now) - self.began, 3),
            expires_in=None if self.ended is None else max(round(self.ended + kept_seconds - now, 1), 0.0),
        )


class Jobs:
    """The jobs of one service, worked on one after the other.

    Parameters
    ----------
    limits : ServiceLimits
    read : callable
        Reads the queries of a file, at most so many.
    search : callable
        Searches some of them.
    metrics : Metrics
    """

    def __init__(
        self,
        limits: ServiceLimits,
        read: ReadQueries,
        search: SearchQueries,
        metrics: Metrics,
    ) -> None:
        self._limits, self._read, self._search, self._metrics = limits, read, search, metrics
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._running: asyncio.Task[None] | None = None

    def refuse_too_many(self) -> None:
        """Raise `RequestError` if no further job is taken."""
        self.forget_old()
        if len(self._jobs) >= self._limits.jobs:
            raise RequestError(
                429, f"{len(self._jobs)} jobs are kept already; delete one, or come back", retry_after=60
            )

    def add(self, path: Path, options: SearchOptions, index: IndexState) -> Job:
        """Take a job; the folder of ``path`` is the job's from now on.

        Raises
        ------
        RequestError
            There are too many.
        """
        self.refuse_too_many()
        row_type = StructureHitRow if index.kind == "structures" else HitRow
        job = Job(secrets.token_urlsafe(16), path, options, JobHits(path.parent, row_type), index)
        self._jobs[job.id] = job
        self._waiting.put_nowait(job)
        self._count()
        return job

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises
        ------
        RequestError
            There is none of this id, or it was forgotten.
        """
        self.forget_old()
        if (job := self._jobs.get(job_id)) is None:
            raise RequestError(404, "there is no job of this id; it may have expired")
        return job

    def delete(self, job_id: str) -> None:
        """Cancel and forget a job."""
        job = self.get(job_id)
        if job.state == "running" and self._running is not None:
            self._running.cancel()
        job.state = "cancelled"
        self._forget(job)
        self._count()

    def forget_old(self) -> None:
        """Forget jobs that ended long ago."""
        oldest = time.monotonic() - self._limits.job_kept_seconds
        for job in [job for job in self._jobs.values() if job.ended is not None and job.ended < oldest]:
            self._forget(job)
        self._count()

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id]
        shutil.rmtree(job.path.parent, ignore_errors=True)

    async def work(self) -> None:
        """Work on jobs as they come and forget old ones, until cancelled."""
        forgetting = asyncio.create_task(self._forget_regularly())
        try:
            await self._work()
        finally:
            forgetting.cancel()

    async def _forget_regularly(self) -> None:
        while True:
            await asyncio.sleep(min(self._limits.job_kept_seconds, _SECONDS_BETWEEN_LOOKS))
            self.forget_old()

    async def _work(self) -> None:
        while True:
            await self._work_on_next()

    async def _work_on_next(self) -> None:
        """Work on one job, in a frame that ends with it: while the next is waited for, no index is held."""
        job = await self._waiting.get()
        if job.state == "cancelled":
            return
        running = self._running = asyncio.create_task(self._work_on(job))
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait({running})
            raise
        finally:
            self._running = None
        if not running.cancelled() and (error := running.exception()) is not None:
            logger.error("a job failed", exc_info=error)

    async def _work_on(self, job: Job) -> None:
        job.state, job.began = "running", time.monotonic()
        self._count()
        try:
            async with asyncio.timeout(self._limits.job_seconds):
                queries = await self._read(job.path, self._limits.job_spectra)
                job.num_queries = len(queries)
                if (num_hits := len(queries) * job.options.k) > self._limits.job_hits:
                    raise RequestError(
                        413,
                        f"{num_hits:,} hits are more than the {self._limits.job_hits:,} of one job; ask for a lower k",
                    )
                for start in range(0, len(queries), QUERIES_AT_ONCE):
                    answers = await self._search(job.index, queries[start : start + QUERIES_AT_ONCE], job.options)
                    await to_thread.run_sync(job.hits.append, answers)
                    job.num_done += len(answers)
            job.state = "done"
        except TimeoutError:
            job.state, job.error = "failed", f"took longer than {self._limits.job_seconds:g} s; send fewer spectra"
        except (InputError, RequestError) as error:
            job.state, job.error = "failed", " ".join(str(getattr(error, "detail", error)).split())
        except asyncio.CancelledError:
            job.state = "cancelled"
            raise
        except Exception:
            if job.id not in self._jobs:  # deleted, and its folder with it, while it was worked on
                return
            job.state, job.error = "failed", "the service failed; its log says why"
            raise
        finally:
            job.ended = time.monotonic()
            job.path.unlink(missing_ok=True)  # the upload itself; its spectra are still needed for some formats
            self._count()

    def _count(self) -> None:
        for state in ("queued", "running", "done", "failed"):
            self._metrics.jobs.labels(state).set(sum(job.state == state for job in self._jobs.values()))
