"""What all requests share: the index, the thread that searches it, the jobs, and the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from anyio import to_thread
from fastapi import Depends, Request

from ...errors import InputError
from ..structure_index import StructureIndex
from .batching import Batcher
from .jobs import Jobs
from .metrics import Metrics
from .models import IndexModel
from .readers import Readers
from .searching import AnyIndex, SearchOptions
from .settings import ServiceLimits, ServiceSettings


@dataclass
class Service:
    """One index behind HTTP.

    Attributes
    ----------
    index : Index or StructureIndex
    settings : ServiceSettings
    metrics : Metrics
    batcher : Batcher
    readers : Readers
    jobs : Jobs
    folder : Path
        Where uploads lie while they are read; of this process alone.
    is_ready : bool
        Whether requests are welcome: not before the model is loaded, nor once the service is told to end.
    told : dict
        What was worked out once: the answers of /api/info and /api/example.
    """

    index: AnyIndex
    settings: ServiceSettings
    metrics: Metrics
    batcher: Batcher
    readers: Readers
    jobs: Jobs
    folder: Path
    is_ready: bool = False
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> ServiceLimits:
        """Of the settings."""
        return self.settings.limits

    @property
    def kind(self) -> Literal["spectra", "structures"]:
        """What the index holds."""
        return "structures" if isinstance(self.index, StructureIndex) else "spectra"

    async def check(self, options: SearchOptions) -> None:
        """Raise `InputError` if the index cannot be searched with these options, before a file is read for nothing."""
        await to_thread.run_sync(self._check, options)  # what a score needs may first have to be loaded

    def _check(self, options: SearchOptions) -> None:
        if isinstance(self.index, StructureIndex):
            self.index.score_name(cast(Any, options.score))
            if options.precursor_da is not None or options.filters is not None:
                name = "filters" if options.precursor_da is None else "precursor_da"
                raise InputError(f"{name}: this index holds structures, which are found by mass in ppm; leave it out")
            return
        if options.formula is not None:
            raise InputError("formula: this index holds spectra, which are searched by precursor m/z; leave it out")
        self.index.score_name(cast(Any, options.score))

    def index_model(self) -> IndexModel:
        """Return what answers say of the index."""
        manifest = self.index.manifest
        return IndexModel(
            kind=self.kind,
            size=len(self.index),
            model_hash=manifest["model_hash"],
            ionbed_version=manifest.get("ionbed_version"),
        )


async def _service_of(request: Request) -> Service:  # not async it would wait for a thread, for each request
    service: Service = request.app.state.service
    return service


ServiceOfRequest = Annotated[Service, Depends(_service_of)]
