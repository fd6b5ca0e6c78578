"""What all requests share: the index, the thread that searches it, the jobs, and the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from anyio import to_thread
from fastapi import Depends, Request

from ...errors import InputError
from ..queries import Query, queries_of
from ..structure_index import StructureIndex
from .batching import Batcher
from .failures import RequestError
from .jobs import Jobs
from .metrics import Metrics
from .models import IndexModel
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

    def check(self, options: SearchOptions) -> None:
        """Raise `InputError` if the index cannot be searched with these options, before a file is read for nothing."""
        if isinstance(self.index, StructureIndex):
            self.index.score_name(cast(Any, options.score))
            return
        if options.formula is not None:
            raise InputError("formula: this index holds spectra, which are searched by precursor m/z; leave it out")
        self.index.check_score(cast(Any, options.score or "cosine"))

    async def read_queries(self, path: Path, most: int) -> list[Query]:
        """Return the queries of a file, at most so many.

        Raises
        ------
        RequestError
            There are none, or more, or the file cannot be read.
        """
        return await to_thread.run_sync(_read, path, most)

    def index_model(self) -> IndexModel:
        """Return what answers say of the index."""
        manifest = self.index.manifest
        return IndexModel(
            kind=self.kind,
            size=len(self.index),
            model_hash=manifest["model_hash"],
            ionbed_version=manifest.get("ionbed_version"),
        )


def _service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceOfRequest = Annotated[Service, Depends(_service_of)]


def _read(path: Path, most: int) -> list[Query]:
    queries = []
    for query in queries_of(path)[0]:
        if len(queries) == most:
            raise RequestError(413, f"the file holds more than {most:,} spectra")
        queries.append(query)
    if not queries:
        raise RequestError(422, "the file holds no MS/MS spectra")
    return queries
