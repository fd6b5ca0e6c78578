"""The routes of batch jobs: give a file, ask how far it is, fetch the hits, cancel."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from starlette.responses import Response

from .answers import ERRORS, FORMAT_RESPONSES, file_response
from .failures import RequestError
from .models import ErrorModel, Format, JobModel, SearchAnswer
from .routes_search import FormOptions, SpectraFile, checked_options
from .state import ServiceOfRequest
from .uploads import copy_upload

router = APIRouter(prefix="/api/jobs", tags=["jobs"], responses=ERRORS)

JobId = Annotated[str, PathParameter(max_length=50, pattern=r"^[A-Za-z0-9_-]+$")]


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
    service: ServiceOfRequest, job_id: JobId, format: Annotated[Format, Query(description="Of the answer.")] = "json"
) -> Response:
    """Return the hits of a job that is done."""
    job = service.jobs.get(job_id)
    if job.state != "done":
        raise RequestError(409, f"the job is {job.state}; its hits can be had once it is done")
    seconds = (job.ended or 0.0) - (job.began or 0.0)
    try:
        return await file_response(job.index, job.hits, job.options, format, seconds, service.folder)
    except FileNotFoundError:
        raise RequestError(404, "the job was deleted meanwhile") from None


@router.delete("/{job_id}", status_code=204, response_class=Response)
async def delete_job(service: ServiceOfRequest, job_id: JobId) -> Response:
    """Cancel a job, or forget its hits."""
    service.jobs.delete(job_id)
    return Response(status_code=204)
