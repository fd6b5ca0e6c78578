"""A query beside a library spectrum: which peaks match, as they are or by their neutral losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import to_thread

from ...spectra.spectrum import Spectrum
from ..index import Index
from ..peak_matches import matches_of
from .failures import RequestError
from .index_facts import refuse_missing_row
from .models import Match, MirrorAnswer, MirrorRequest, SpectrumModel
from .searching import peak_pairs
from .uploads import query_of_peaks

if TYPE_CHECKING:
    from .index_state import IndexState
    from .state import Service


async def mirror(service: Service, request: MirrorRequest) -> MirrorAnswer:
    """Return the two spectra and their matches.

    Raises
    ------
    RequestError
        There is no such row (any more), or the index holds structures, or the peaks cannot be used.
    """
    query = query_of_peaks(
        SpectrumModel(precursor_mz=request.precursor_mz, charge=request.charge, peaks=request.peaks), service.limits
    )
    assert query.spectrum is not None, "a query of peaks that cannot be used is refused"
    state = service.now
    state.refuse_other_generation(request.row, request.generation)
    library = await to_thread.run_sync(library_spectrum, state, request.row)
    return _compared(query.spectrum, library, request.tolerance_da)


def library_spectrum(state: IndexState, row: int) -> Spectrum:
    """Return the spectrum of a row.

    Raises
    ------
    RequestError
        There is no such row, or the index holds structures.
    """
    index = state.index
    if not isinstance(index, Index):
        raise RequestError(422, "this index holds structures, and no spectra of them")
    refuse_missing_row(index, row)
    return index.spectra([row])[0]


def _compared(query: Spectrum, library: Spectrum, tolerance: float) -> MirrorAnswer:
    shift = query.precursor_mz - library.precursor_mz
    found = matches_of(query, library, tolerance_da=tolerance)
    fragments: list[Match] = []
    losses: list[Match] = []
    for i, j, is_shifted in zip(
        found.query_peak.tolist(), found.library_peak.tolist(), found.is_shifted.tolist(), strict=True
    ):
        query_mz, library_mz = float(query.mz[i]), float(library.mz[j])
        match = Match(
            query_peak=i,
            library_peak=j,
            query_mz=round(query_mz, 5),
            library_mz=round(library_mz, 5),
            difference_da=round(query_mz - library_mz - (shift if is_shifted else 0.0), 6),
        )
        (losses if is_shifted else fragments).append(match)
    return MirrorAnswer(
        query=peak_pairs(query.mz, query.intensity),
        library=peak_pairs(library.mz, library.intensity),
        query_precursor_mz=query.precursor_mz,
        library_precursor_mz=library.precursor_mz,
        shift_da=shift,
        tolerance_da=tolerance,
        fragments=fragments,
        losses=losses,
    )
