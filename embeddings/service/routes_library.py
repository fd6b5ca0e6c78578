"""The routes of what the index holds: a library spectrum, a structure, and the drawing of one."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from starlette.responses import Response

from ..structure_index import StructureIndex
from .answers import ERRORS
from .failures import RequestError
from .index_facts import refuse_missing_row
from .index_state import IndexState
from .mirror import library_spectrum
from .models import ErrorModel, Generation, LibraryEntry, finite
from .openapi import operation_id
from .searching import peak_pairs
from .state import Service, ServiceOfRequest

router = APIRouter(prefix="/api", tags=["library"], responses=ERRORS, generate_unique_id_function=operation_id)

Row = Annotated[int, PathParameter(ge=0, le=2**53)]
GenerationOption = Annotated[Generation | None, Query()]
MOVED: dict[int | str, dict[str, Any]] = {
    410: {"model": ErrorModel, "description": "The rows of the index had other numbers in that generation."}
}
_SVG: dict[int | str, dict[str, Any]] = {
    200: {"description": "The drawing.", "content": {"image/svg+xml": {"schema": {"type": "string"}}}}
}


@router.get("/library/{row}", response_model=LibraryEntry, responses=MOVED)
async def library_entry(service: ServiceOfRequest, row: Row, generation: GenerationOption = None) -> LibraryEntry:
    """Return the peaks and metadata of a row of the index."""
    return await _entry(service.now, row, generation)


@router.get("/library/{row}/structure.svg", response_class=Response, responses={**_SVG, **MOVED})
async def library_structure(service: ServiceOfRequest, row: Row, generation: GenerationOption = None) -> Response:
    """Draw the structure of a row of the index."""
    smiles = (await _entry(service.now, row, generation)).metadata.get("smiles")
    if not smiles:
        raise RequestError(404, f"the structure of row {row} is not known")
    # Without its generation a row may be another one tomorrow.
    return await _drawing(service, smiles, may_be_kept=generation is not None)


@router.get("/structure.svg", response_class=Response, responses=_SVG)
async def structure(
    service: ServiceOfRequest, smiles: Annotated[str, Query(min_length=1, description="The structure.")]
) -> Response:
    """Draw a structure."""
    if len(smiles) > service.limits.smiles_length:
        raise RequestError(
            422, f"smiles: is longer than the {service.limits.smiles_length:,} characters that are taken"
        )
    return await _drawing(service, smiles, may_be_kept=True)


async def _drawing(service: Service, smiles: str, *, may_be_kept: bool) -> Response:
    svg = await service.readers.draw(smiles)
    # A drawing may be opened by itself, where nothing but its own styles should have any effect.
    headers = {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        "Cache-Control": "private, max-age=86400" if may_be_kept else "no-store",  # a proxy asks for no key
    }
    return Response(svg, headers=headers, media_type="image/svg+xml")


async def _entry(state: IndexState, row: int, generation: str | None) -> LibraryEntry:
    state.refuse_other_generation(row, generation)
    return await to_thread.run_sync(_read_entry, state, row)


def _read_entry(state: IndexState, row: int) -> LibraryEntry:
    index = state.index
    if isinstance(index, StructureIndex):
        refuse_missing_row(index, row)
        known = index.metadata.slice(row, 1).to_pylist()[0]
        return LibraryEntry(row=row, kind="structures", peaks=[], metadata=_known(known))
    spectrum = library_spectrum(state, row)
    known = {name: getattr(spectrum, name) for name in _METADATA}
    return LibraryEntry(
        row=row,
        kind="spectra",
        precursor_mz=spectrum.precursor_mz,
        peaks=peak_pairs(spectrum.mz, spectrum.intensity),
        metadata=_known(known),
    )


_METADATA = (
    "spectrum_id", "name", "formula", "smiles", "inchikey", "chemical_class", "precursor_mz", "charge", "polarity",
    "adduct", "ms_level", "retention_time", "collision_energy", "collision_energy_raw", "instrument_type", "instrument",
    "laboratory", "license", "usi", "native_id", "grade", "predicted", "flags",
)  # fmt: skip


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Return what is known, as JSON can say it."""
    plain = {name: finite(value) if isinstance(value, float) else value for name, value in values.items()}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items() if v is not None and v != ()}
