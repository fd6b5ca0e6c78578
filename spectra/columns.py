"""Many spectra as flat columns: what encoding, training and searching read, without a Python object per spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from .spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class SpectrumColumns:
    """The numeric side of ``n_spectra`` spectra, peaks concatenated.

    Attributes
    ----------
    offsets : int64 array of shape (n_spectra + 1,)
        Spectrum i owns peaks ``offsets[i]:offsets[i + 1]``.
    mz, intensity : float32 arrays of shape (n_peaks_total,)
        Fragment m/z (Da per charge, ascending within a spectrum) and intensity relative to the base peak.
    precursor_mz : float64 array of shape (n_spectra,)
    polarity : int8 array of shape (n_spectra,)
        +1, -1, or 0 where unknown.
    charge : int8 array of shape (n_spectra,)
        0 where unknown.
    collision_energy : float32 array of shape (n_spectra,)
        In eV, NaN where unknown.
    adduct, instrument_type : object arrays of str or None, of shape (n_spectra,)
    """

    offsets: np.ndarray
    mz: np.ndarray
    intensity: np.ndarray
    precursor_mz: np.ndarray
    polarity: np.ndarray
    charge: np.ndarray
    collision_energy: np.ndarray
    adduct: np.ndarray
    instrument_type: np.ndarray

    TABLE_COLUMNS = (
        "mz", "intensity", "precursor_mz", "polarity", "charge", "collision_energy", "adduct", "instrument_type",
    )  # fmt: skip

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.precursor_mz)

    @property
    def num_peaks(self) -> np.ndarray:
        """Number of peaks of each spectrum, int64 of shape (n_spectra,)."""
        return np.diff(self.offsets)

    def peak_places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each peak, the number of its spectrum and its place in it (from 0), int64 of shape (n_peaks,)."""
        counts = self.num_peaks
        spectrum = np.repeat(np.arange(len(self)), counts)
        return spectrum, np.arange(len(spectrum)) - np.repeat(self.offsets[:-1], counts)

    @classmethod
    def from_spectra(cls, spectra: Sequence[Spectrum]) -> SpectrumColumns:
        """Gather the columns of a sequence of spectra."""
        counts = np.fromiter((len(s) for s in spectra), np.int64, len(spectra))
        empty = [np.empty(0, np.float32)]
        return cls(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            mz=np.concatenate([s.mz for s in spectra] or empty).astype(np.float32, copy=False),
            intensity=np.concatenate([s.intensity for s in spectra] or empty).astype(np.float32, copy=False),
            precursor_mz=np.array([s.precursor_mz for s in spectra], np.float64),
            polarity=np.array([s.polarity or 0 for s in spectra], np.int8),
            charge=np.array([s.charge or 0 for s in spectra], np.int8),
            collision_energy=np.array(
                [np.nan if s.collision_energy is None else s.collision_energy for s in spectra], np.float32
            ),
            adduct=np.array([s.adduct for s in spectra], object),
            instrument_type=np.array([s.instrument_type for s in spectra], object),
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> SpectrumColumns:
        """Take the columns from a table of the store; the peaks are not copied where Arrow keeps them in one piece."""
        mz, intensity = (_one_chunk(table[name]) for name in ("mz", "intensity"))
        offsets = mz.offsets.to_numpy().astype(np.int64)
        if not np.array_equal(offsets - offsets[0], intensity.offsets.to_numpy() - intensity.offsets[0].as_py()):
            raise ValueError("the columns mz and intensity do not hold the same number of peaks in every row")
        start, stop = int(offsets[0]), int(offsets[-1])
        intensity_start = intensity.offsets[0].as_py()
        return cls(
            offsets=offsets - start,
            mz=mz.values.to_numpy()[start:stop],
            intensity=intensity.values.to_numpy()[intensity_start : intensity_start + stop - start],
            precursor_mz=table["precursor_mz"].to_numpy(),
            polarity=table["polarity"].fill_null(0).to_numpy().astype(np.int8),
            charge=table["charge"].fill_null(0).to_numpy().astype(np.int8),
            collision_energy=table["collision_energy"].fill_null(float("nan")).to_numpy().astype(np.float32),
            adduct=_texts(table["adduct"]),
            instrument_type=_texts(table["instrument_type"]),
        )

    def take(self, rows: np.ndarray) -> SpectrumColumns:
        """Return the spectra at ``rows`` (integers of shape (n,)), in that order."""
        rows = np.asarray(rows, np.int64)
        counts = self.num_peaks[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        peaks = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return SpectrumColumns(
            offsets=offsets,
            mz=self.mz[peaks],
            intensity=self.intensity[peaks],
            precursor_mz=self.precursor_mz[rows],
            polarity=self.polarity[rows],
            charge=self.charge[rows],
            collision_energy=self.collision_energy[rows],
            adduct=self.adduct[rows],
            instrument_type=self.instrument_type[rows],
        )


def text_codes(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of text as the number of each row's text (-1 for null), and the texts: an array with None last.

    Texts that many rows share become one Python object, not one for each row: ``texts[codes]`` has those of all rows.
    """
    encoded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    texts = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    return np.concatenate([*codes, np.empty(0, np.int32)]).astype(np.int32), np.array([*texts, None], object)


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    codes, texts = text_codes(column)
    every: np.ndarray = texts[codes]
    return every


def _one_chunk(column: pa.ChunkedArray) -> pa.ListArray:
    chunk = column.combine_chunks()
    if isinstance(chunk, pa.ChunkedArray):  # combine_chunks keeps chunks only where one would overflow
        chunk = pa.concat_arrays([c.cast(pa.large_list(pa.float32())) for c in chunk.chunks])
    return chunk
