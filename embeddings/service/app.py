"""The service as an ASGI application: its routes, its life from the loaded model to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI

from ... import __version__
from ..queries import Query
from ..search_options import SearchOptions
from . import routes_jobs, routes_library, routes_search
from .batching import Batcher
from .documentation import read_assets
from .failures import RequestError, add_handlers
from .index_state import IndexState
from .index_watch import IndexWatch
from .jobs import Jobs
from .metrics import Metrics
from .middleware import Gate
from .openapi import document
from .page_routes import page_router
from .readers import Readers
from .routes_about import about, health, plain
from .searching import Answer, AnyIndex, first_query, warm_up
from .settings import ServiceSettings
from .state import Service

_DESCRIPTION = "Search tandem mass spectra (MS/MS) in an index: by file, by peak list, or in batch jobs."
_BUSY_SECONDS = 0.5


def create_app(index: AnyIndex, settings: ServiceSettings | None = None) -> FastAPI:
    """Return the service over an index.

    Parameters
    ----------
    index : Index or StructureIndex
    settings : ServiceSettings, optional
    """
    service = _service(index, settings or ServiceSettings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="ionbed-serve-") as folder:
            service.folder = Path(folder)
            service.batcher.start()
            await service.readers.start(service.folder, warm=service.settings.warm)
            if service.settings.warm:
                await to_thread.run_sync(warm_up, service.now.index)  # which holds no index that was replaced
            work = [asyncio.create_task(service.jobs.work()), asyncio.create_task(service.watch.watch())]
            service.is_ready = True
            try:
                yield
            finally:
                service.is_ready = False
                for task in work:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                await to_thread.run_sync(service.batcher.stop, service.limits.seconds)
                await service.readers.stop()

    app = FastAPI(
        title="ionbed",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.documentation = read_assets()
    for router in (
        routes_search.router,
        routes_search.json_router,
        routes_jobs.router,
        routes_library.router,
        about,
        health,
        plain,
        page_router(),
    ):
        # As routes of the application itself: of a router within it FastAPI looks at all routes anew for each request.
        app.router.routes.extend(router.routes)
    documented = document(app, needs_key=service.settings.api_key is not None)
    app.openapi = lambda: documented  # type: ignore[method-assign]  # the way that FastAPI names for it
    add_handlers(app)
    app.add_middleware(Gate, service=service)
    return app


def _service(index: AnyIndex, settings: ServiceSettings) -> Service:
    metrics = Metrics()
    readers = Readers(settings.readers, settings.limits)
    batcher = Batcher(
        metrics,
        batch_spectra=settings.batch_spectra,
        batch_seconds=settings.batch_seconds,
        coming_seconds=settings.coming_seconds,
        queued_spectra=settings.limits.queued_spectra,
    )

    async def read(path: Path, most: int) -> list[Query]:
        return await readers.read(path, most, seconds=settings.limits.job_seconds)

    async def search(state: IndexState, queries: list[Query], options: SearchOptions) -> list[Answer]:
        while True:
            try:
                return await batcher.search(state, queries, options, seconds=settings.limits.job_seconds)
            except RequestError as error:
                if error.status_code != 503:
                    raise
                await asyncio.sleep(_BUSY_SECONDS)  # requests go first

    async def try_out(state: IndexState) -> None:
        query = await to_thread.run_sync(first_query, state.index)  # reads from the disk
        await batcher.search(state, [query], SearchOptions(k=1), seconds=settings.limits.seconds)

    watch = IndexWatch(index, metrics, try_out)
    jobs = Jobs(settings.limits, read, search, metrics)
    return Service(watch, settings, metrics, batcher, readers, jobs, Path())
