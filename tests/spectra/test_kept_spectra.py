"""Spectra that are kept for later searches: those of a row are its own, whatever failed before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ionbed.spectra import kept_spectra
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.kept_spectra import KeptSpectra
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.spectrum import Spectrum


@pytest.mark.parametrize("call", [0, 1, 2])
def test_spectra_for_which_there_was_no_memory_are_read_again(monkeypatch, call) -> None:
    spectra = [Spectrum(str(n), 300.0, np.array([50.0 + n, 100.0 + n]), np.ones(2)) for n in range(20)]
    kept = KeptSpectra(
        lambda rows: SpectrumColumns.from_spectra([spectra[row] for row in rows]), len(spectra), LookupOptions()
    )
    plain, calls = kept_spectra._Arrays.append, itertools.count()

    def append(self, new) -> None:
        if next(calls) == call:
            raise MemoryError
        plain(self, new)

    monkeypatch.setattr(kept_spectra._Arrays, "append", append)
    monkeypatch.setattr(kept_spectra, "ROWS_READ_AT_ONCE", 7)
    rows = np.arange(len(spectra))
    with pytest.raises(MemoryError):
        kept.compared(rows)
    for _ in range(2):
        compared, place = kept.compared(rows)
        peaks = compared.weighted.entropy_peaks
        np.testing.assert_array_equal(peaks.mz[peaks.offsets[place]], 50.0 + rows)
