"""The routes of searches that are answered at once: by file, by peak list, by USI; and a query beside a hit."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from pydantic import ValidationError
from starlette.responses import Response

from ..queries import Query as SpectrumQuery
from ..search_options import SearchOptions
from .answers import ERRORS, FORMAT_RESPONSES, answer_response
from .failures import RequestError, validation_message
from .index_state import IndexState
from .json_route import JsonRoute
from .mirror import mirror
from .models import (
    ErrorModel,
    FilterModel,
    Format,
    MirrorAnswer,
    MirrorRequest,
    Mode,
    OptionsModel,
    PeaksRequest,
    Score,
    SearchAnswer,
    UsiRequest,
)
from .openapi import operation_id
from .routes_library import MOVED
from .searching import options_of
from .state import Service, ServiceOfRequest
from .uploads import SMALL_BYTES, kept_upload, query_of_peaks
from .usi import query_of_usi

router = APIRouter(prefix="/api", tags=["search"], responses=ERRORS, generate_unique_id_function=operation_id)

json_router = APIRouter(
    prefix="/api",
    tags=["search"],
    responses=ERRORS,
    generate_unique_id_function=operation_id,
    route_class=JsonRoute,
)

FormatOption = Annotated[Format, Query(description="Of the answer; all but json come as a file.")]


NO_USI: dict[int | str, dict[str, Any]] = {403: {"model": ErrorModel, "description": "No spectra are fetched by USI."}}


async def form_options(
    request: Request,
    k: Annotated[int, Form(ge=1, le=1_000_000)] = 10,
    mode: Annotated[Mode, Form()] = "identity",
    precursor_ppm: Annotated[float | None, Form(gt=0, lt=1e6)] = None,
    precursor_da: Annotated[float | None, Form(gt=0, le=1e6)] = None,
    score: Annotated[Score | None, Form()] = None,
    formula: Annotated[str | None, Form(max_length=200)] = None,
    polarity: Annotated[int | None, Form(ge=-1, le=1)] = None,
    adducts: Annotated[list[str], Form(max_length=100)] = [],  # noqa: B006
    instrument_types: Annotated[list[str], Form(max_length=100)] = [],  # noqa: B006
    energy: Annotated[list[float], Form(max_length=2, description="Least and largest, in eV.")] = [],  # noqa: B006
    formulas: Annotated[list[str], Form(max_length=100)] = [],  # noqa: B006
    licenses: Annotated[list[str], Form(max_length=100)] = [],  # noqa: B006
) -> OptionsModel:
    """Return the options that stand beside the file in a form; lists are given by repeating a field."""
    known = {*OptionsModel.model_fields, *FilterModel.model_fields, "file"}
    if unknown := sorted(set(await request.form()) - known):
        raise RequestError(422, f"{unknown[0][:50]!r}: is no field of this form; it has {', '.join(sorted(known))}")
    filters = {
        "polarity": polarity,
        "adducts": adducts,
        "instrument_types": instrument_types,
        "energy": energy or None,
        "formulas": formulas,
        "licenses": licenses,
    }
    words = {"k": k, "mode": mode, "precursor_ppm": precursor_ppm, "precursor_da": precursor_da}
    try:
        return OptionsModel.model_validate({**words, "score": score, "formula": formula, "filters": filters})
    except ValidationError as error:
        raise RequestError(422, validation_message(error.errors())) from None


FormOptions = Annotated[OptionsModel, Depends(form_options)]
SpectraFile = Annotated[
    UploadFile, File(description="Spectra in any format that ionbed reads, packed or not; or an archive of such files.")
]


@router.post("/search", response_model=SearchAnswer, responses=FORMAT_RESPONSES)
async def search_file(
    service: ServiceOfRequest, file: SpectraFile, options: FormOptions, format: FormatOption = "json"
) -> Response:
    """Search every spectrum of a file."""
    started = time.monotonic()
    state = service.now
    wanted = await checked_options(service, state, options)
    is_small = file.size is not None and file.size <= SMALL_BYTES  # a large one is read for seconds
    with service.batcher.expecting() if is_small else nullcontext():
        async with kept_upload(file, service.folder) as path:
            queries = await service.readers.read(path, service.limits.spectra, seconds=service.limits.seconds / 2)
    return await _answer(service, state, queries, wanted, format, started)


@json_router.post("/search/peaks", response_model=SearchAnswer, responses=FORMAT_RESPONSES)
async def search_peaks(service: ServiceOfRequest, request: PeaksRequest, format: FormatOption = "json") -> Response:
    """Search one spectrum, given as a peak list."""
    started = time.monotonic()
    state = service.now
    wanted = await checked_options(service, state, request)
    return await _answer(service, state, [query_of_peaks(request, service.limits)], wanted, format, started)


@json_router.post("/search/usi", response_model=SearchAnswer, responses={**FORMAT_RESPONSES, **NO_USI})
async def search_usi(service: ServiceOfRequest, request: UsiRequest, format: FormatOption = "json") -> Response:
    """Search the spectrum of a Universal Spectrum Identifier, where the service fetches such."""
    started = time.monotonic()
    state = service.now
    wanted = await checked_options(service, state, request)
    return await _answer(service, state, [await query_of_usi(request.usi, service)], wanted, format, started)


@router.post("/mirror", response_model=MirrorAnswer, responses=MOVED)
async def compare(service: ServiceOfRequest, request: MirrorRequest) -> MirrorAnswer:
    """Say which peaks of a query go with which of a library spectrum, by m/z or by neutral loss."""
    return await mirror(service, request)


async def checked_options(service: Service, state: IndexState, model: OptionsModel) -> SearchOptions:
    """Return the options of a request.

    Raises
    ------
    RequestError
        More hits are asked than are given.
    """
    if model.k > service.limits.k:
        raise RequestError(422, f"k: {model.k} is more than the {service.limits.k} hits that are given")
    options = options_of(model)
    await state.check(options)
    return options


async def _answer(
    service: Service,
    state: IndexState,
    queries: list[SpectrumQuery],
    options: SearchOptions,
    format: Format,
    started: float,
) -> Response:
    left = service.limits.seconds - (time.monotonic() - started)
    answers = await service.batcher.search(state, queries, options, seconds=max(left, 0.1))
    return await answer_response(state, answers, options, format, time.monotonic() - started)
