"""A query beside a library spectrum: which peaks match, as they are or by their neutral losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anyio import to_thread

from ...spectra.spectrum import Spectrum
from ..index import Index
from .failures import RequestError
from .index_facts import num_rows
from .models import Match, MirrorAnswer, MirrorRequest, SpectrumModel
from .searching import peak_pairs
from .uploads import query_of_peaks

if TYPE_CHECKING:
    from .state import Service


async def mirror(service: Service, request: MirrorRequest) -> MirrorAnswer:
    """Return the two spectra and their matches.

    Raises
    ------
    RequestError
        There is no such row, or the index holds structures, or the peaks cannot be used.
    """
    query = query_of_peaks(
        SpectrumModel(precursor_mz=request.precursor_mz, charge=request.charge, peaks=request.peaks), service.limits
    )
    assert query.spectrum is not None, "a query of peaks that cannot be used is refused"
    library = await to_thread.run_sync(library_spectrum, service, request.row)
    return _compared(query.spectrum, library, request.tolerance_da)


def library_spectrum(service: Service, row: int) -> Spectrum:
    """Return the spectrum of a row.

    Raises
    ------
    RequestError
        There is no such row, or the index holds structures.
    """
    index = service.index
    if not isinstance(index, Index):
        raise RequestError(422, "this index holds structures, and no spectra of them")
    if row >= num_rows(index):
        raise RequestError(404, f"there is no row {row}; the index has {num_rows(index):,}")
    return index.spectra([row])[0]


def _compared(query: Spectrum, library: Spectrum, tolerance: float) -> MirrorAnswer:
    shift = query.precursor_mz - library.precursor_mz
    fragments = _matches(query, library, 0.0, tolerance)
    taken_query, taken_library = {m.query_peak for m in fragments}, {m.library_peak for m in fragments}
    losses = [
        match
        for match in (_matches(query, library, shift, tolerance) if abs(shift) > tolerance else [])
        if match.query_peak not in taken_query and match.library_peak not in taken_library
    ]
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


def _matches(query: Spectrum, library: Spectrum, shift: float, tolerance: float) -> list[Match]:
    """Pair peaks within the tolerance, the nearest first; each is used once."""
    moved = library.mz.astype(np.float64) + shift
    difference = query.mz.astype(np.float64)[:, None] - moved[None, :]
    near = np.argwhere(np.abs(difference) <= tolerance)
    used_query: set[int] = set()
    used_library: set[int] = set()
    found = []
    for i, j in sorted(near.tolist(), key=lambda pair: abs(difference[pair[0], pair[1]])):
        if i not in used_query and j not in used_library:
            used_query.add(i)
            used_library.add(j)
            found.append(
                Match(
                    query_peak=i,
                    library_peak=j,
                    query_mz=round(float(query.mz[i]), 5),
                    library_mz=round(float(library.mz[j]), 5),
                    difference_da=round(float(difference[i, j]), 6),
                )
            )
    return sorted(found, key=lambda match: match.query_peak)
