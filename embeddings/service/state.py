"""What all requests share: the index, the thread that searches it, the jobs, and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from .batching import Batcher
from .index_state import IndexState
from .index_watch import IndexWatch
from .jobs import Jobs
from .metrics import Metrics
from .readers import Readers
from .settings import ServiceLimits, ServiceSettings


@dataclass
class Service:
    """One index behind HTTP.

    Attributes
    ----------
    watch : IndexWatch
        Has the state of the index for what begins now.
    settings : ServiceSettings
    metrics : Metrics
    batcher : Batcher
    readers : Readers
    jobs : Jobs
    folder : Path
        Where uploads lie while they are read; of this process alone.
    is_ready : bool
        Whether requests are welcome: not before the model is loaded, nor once the service is told to end.
    """

    watch: IndexWatch
    settings: ServiceSettings
    metrics: Metrics
    batcher: Batcher
    readers: Readers
    jobs: Jobs
    folder: Path
    is_ready: bool = False

    @property
    def now(self) -> IndexState:
        """The index as it is now: asked for once by a request, which goes on with it."""
        return self.watch.state

    @property
    def limits(self) -> ServiceLimits:
        """Of the settings."""
        return self.settings.limits


async def _service_of(request: Request) -> Service:  # not async it would wait for a thread, for each request
    service: Service = request.app.state.service
    return service


ServiceOfRequest = Annotated[Service, Depends(_service_of)]
