"""One record as a file gives it, before anything is interpreted: the `RawRecord` that every reader yields."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .spectrum import Spectrum

FIELDS = (
    "precursor_mz",
    "isolation_width",
    "charge",
    "polarity",
    "adduct",
    "ms_level",
    "retention_time",
    "collision_energy",
    "activation",
    "instrument",
    "instrument_type",
    "smiles",
    "inchi",
    "inchikey",
    "formula",
    "name",
    "chemical_class",
    "laboratory",
    "license",
    "usi",
    "spectrum_type",
    "spectrum_representation",
    "predicted",
    "comment",
)
"""The names that `RawRecord.fields` may hold, whatever the file format calls them."""


@dataclass(frozen=True, slots=True, eq=False)
class RawRecord:
    """A spectrum with its metadata as written.

    Attributes
    ----------
    source_file : str
        The path as its user would recognise it: the file's name, or ``archive.tar.gz!folder/member.txt``.
    native_id : str
        Accession, TITLE or scan id as written; '' where the format gives none.
    position : int
        1-based position of the record in its file.
    fields : dict of str to str
        Raw text by field name (`FIELDS`); a field that the file does not give is absent. ``retention_time`` carries
        its unit ('12.3 s', '13.2 min'), a plain number is in seconds; ``ms_level`` is in digits where the file gives
        any; ``isolation_width`` is in Da; ``spectrum_representation`` is 'centroid' or 'profile'.
    mz, intensity : float64 arrays of shape (n_peaks,)
        As written: not sorted, not scaled, zeros kept. m/z in Da per charge.
    problem : str or None
        A short reason code where the record is broken and cannot be used: 'archive-too-deep', 'bad-binary-array',
        'bad-peak-line', 'deprecated' (withdrawn by its authors), 'malformed-json', 'malformed-row', 'malformed-xml',
        'no-peaks', 'packed-table' (rows in a compressed file or an archive), 'truncated',
        'unknown-format', 'unsupported-binary-encoding'.
    repairs : tuple of str
        Short codes of what the reader had to mend: 'bad-peak' (a peak without a finite m/z or intensity, kept as NaN),
        'decimal-comma', 'not-utf-8', 'peak-count' (not as stated), 'record-start' (the line that starts a record was
        lost: what stood in or before it may be missing), 'retention-time-without-unit' (left out),
        'several-analytes' (what they disagree on is left out), 'several-precursors' (the first is taken).
    prepared : Spectrum or None
        The spectrum itself, where the file is one that ``ionbed prepare`` wrote: its metadata need no harmonising.
    """

    source_file: str
    native_id: str
    position: int
    fields: dict[str, str]
    mz: np.ndarray = field(repr=False)
    intensity: np.ndarray = field(repr=False)
    problem: str | None = None
    repairs: tuple[str, ...] = ()
    prepared: Spectrum | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of peaks."""
        return len(self.mz)
