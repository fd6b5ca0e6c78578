"""The routes of batch jobs: give a file, ask how far it is, fetch the hits, cancel."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from starlette.responses import Response

from .answers import ERRORS, FORMAT_RESPONSES, Page, file_response
from .failures import RequestError
from .models import ErrorModel, Format, JobModel, SearchAnswer
from .openapi import operation_id
from .routes_search import FormOptions, SpectraFile, checked_options
from .searching import Answer
from .state import ServiceOfRequest
from .uploads import copy_upload

router = APIRouter(prefix="/api/jobs", tags=["jobs"], responses=ERRORS, generate_unique_id_function=operation_id)

JobId = Annotated[str, PathParameter(max_length=50, pattern=r"^[A-Za-z0-9_-]+$")]

MOST_OF_A_PAGE = 1000
MOST_OFFSET = 2**31

NOT_DONE: dict[int | str, dict[str, Any]] = {409: {"model": ErrorModel, "description": "The job is not done."}}


@router.post("", status_code=202, response_model=JobModel)
async def create_job(service: ServiceOfRequest, file: SpectraFile, options: FormOptions) -> JobModel:
    """Take a file that is searched in the background."""
    state = service.now
    wanted = await checked_options(service, state, options)
    service.jobs.refuse_too_many()
    folder = Path(tempfile.mkdtemp(dir=service.folder))
    try:
        job = service.jobs.add(await to_thread.run_sync(copy_upload, file, folder), wanted, state)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return job.model(service.limits.job_kept_seconds)


@router.get("/{job_id}", response_model=JobModel)
async def job_state(service: ServiceOfRequest, job_id: JobId) -> JobModel:
    """Say how far a job is."""
    return service.jobs.get(job_id).model(service.limits.job_kept_seconds)


@router.get("/{job_id}/hits", response_model=SearchAnswer, responses={**FORMAT_RESPONSES, **NOT_DONE})
async def job_hits(
    service: ServiceOfRequest,
    job_id: JobId,
    format: Annotated[Format, Query(description="Of the answer.")] = "json",
    offset: Annotated[int, Query(ge=0, le=MOST_OFFSET, description="Queries before the first of a page.")] = 0,
    limit: Annotated[
        int | None, Query(ge=1, le=MOST_OF_A_PAGE, description="Queries of a page; all, where it is left out.")
    ] = None,
    with_hits: Annotated[bool, Query(description="Pages of the queries that have a hit.")] = False,
) -> Response:
    """Return the hits of a job that is done: all, or as JSON those of a page of its queries."""
    if (format != "json" and limit is not None) or (limit is None and (offset or with_hits)):
        raise RequestError(422, "pages are of format=json, and have a limit; offset and with_hits go with it")
    job = service.jobs.get(job_id)
    if job.state != "done":
        raise RequestError(409, f"the job is {job.state}; its hits can be had once it is done")
    seconds = (job.ended or 0.0) - (job.began or 0.0)
    answers: Iterable[Answer] = job.hits
    page = None
    if limit is not None:
        answers = job.hits.page(offset, limit, with_hits=with_hits)
        page = Page(offset, job.hits.count(with_hits=with_hits), job.hits.summary)
    try:
        return await file_response(job.index, answers, job.options, format, seconds, service.folder, page)
    except FileNotFoundError:
        raise RequestError(404, "the job was deleted meanwhile") from None


@router.delete("/{job_id}", status_code=204, response_class=Response)
async def delete_job(service: ServiceOfRequest, job_id: JobId) -> Response:
    """Cancel a job, or forget its hits."""
    service.jobs.delete(job_id)
    return Response(status_code=204)
