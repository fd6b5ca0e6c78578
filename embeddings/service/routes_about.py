"""The routes about the service: what the index is, an example, health, metrics, documentation and the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from ... import __version__
from ..search_options import scores_of
from .answers import ERRORS
from .documentation import Asset
from .examples import example_query
from .failures import RequestError
from .index_facts import calibrated, filter_values
from .index_state import IndexState
from .models import ExampleModel, Format, HealthModel, InfoModel, Limits, ReadyModel
from .openapi import operation_id
from .state import Service, ServiceOfRequest

about = APIRouter(prefix="/api", tags=["about"], responses=ERRORS, generate_unique_id_function=operation_id)
health = APIRouter(tags=["about"], generate_unique_id_function=operation_id)
plain = APIRouter(include_in_schema=False)


@about.get("/info", response_model=InfoModel)
async def info(service: ServiceOfRequest) -> InfoModel:
    """Say what the index holds and what may be asked."""
    return await _once(service.now, "info", lambda state: _info(service, state))


@about.get("/example", response_model=ExampleModel)
async def example(service: ServiceOfRequest) -> ExampleModel:
    """Return a query that the index itself holds, to try the search with."""
    return await _once(service.now, "example", example_query)


@health.get("/health/live", response_model=HealthModel)
async def live() -> HealthModel:
    """Answer, as long as the process can."""
    return HealthModel(status="live")


@health.get("/health/ready", response_model=ReadyModel, responses={503: ERRORS[503]})
async def ready(service: ServiceOfRequest) -> ReadyModel:
    """Say whether requests are welcome: the model is loaded, and the service was not told to end."""
    if not (service.is_ready and service.batcher.is_alive):
        raise RequestError(503, "the service is starting or ending", retry_after=5)
    return ReadyModel(status="ready", index="current" if service.watch.error is None else "outdated")


@health.get("/metrics", response_class=PlainTextResponse, responses=ERRORS)
async def metrics(service: ServiceOfRequest) -> Response:
    """Return what Prometheus collects."""
    return Response(service.metrics.exposition(), media_type=service.metrics.content_type)


@plain.get("/docs")
async def docs(request: Request) -> Response:
    """Return the documentation of the routes."""
    return _asset(request, "index.html")


@plain.get("/docs/{name}")
async def docs_file(request: Request, name: str) -> Response:
    """Return a file of the documentation: one of those that were read at the start."""
    return _asset(request, name)


def _asset(request: Request, name: str) -> Response:
    found: Asset | None = request.app.state.documentation.get(name)
    if found is None:
        raise RequestError(404, "there is nothing at this address")
    return found.response(request)


async def _once(state: IndexState, name: str, work_out: Callable[[IndexState], Any]) -> Any:
    if name not in state.told:
        state.told[name] = await to_thread.run_sync(work_out, state)
    return state.told[name]


def _info(service: Service, state: IndexState) -> InfoModel:
    limits = {name: getattr(service.limits, name) for name in Limits.model_fields}
    return InfoModel(
        version=__version__,
        index=state.model,
        scores=list(scores_of(state.index)),
        default_score=state.index.score_name(),
        filters=state.kind == "spectra",
        filter_values=filter_values(state.index),
        calibrated=calibrated(state.index),
        usi=service.settings.usi_resolver is not None,
        formats=list(get_args(Format)),
        limits=Limits(**limits),
        api_key=service.settings.api_key is not None,
    )
