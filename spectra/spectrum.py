"""One tandem mass spectrum with its metadata: the `Spectrum` type that every other part speaks."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class Spectrum:
    """A cleaned MS/MS spectrum of one precursor.

    Unknown values are None, never a sentinel. Build one from raw peaks with `ionbed.spectra.cleaning.clean_peaks`;
    the fields are those of one row of the store (`ionbed.spectra.store.SCHEMA`).

    Attributes
    ----------
    mz : float32 array of shape (n_peaks,)
        Fragment m/z in Da per charge, ascending.
    intensity : float32 array of shape (n_peaks,)
        Relative to the base peak, which is 1.0.
    precursor_mz : float
        In Da per charge.
    polarity : int or None
        +1 or -1.
    charge : int or None
        Number of charges, signed as `polarity`.
    adduct : str or None
        In normal form, for example ``[M+H]+``.
    retention_time : float or None
        In seconds.
    collision_energy : float or None
        In eV; ``collision_energy_raw`` keeps the text it came from.
    laboratory : str or None
        Who measured it (the MassBank contributor, for example).
    predicted : bool
        True for a spectrum that a program predicted and no instrument measured.
    repairs : tuple of str
        What was mended on the way here, as short codes (see `ionbed.spectra.harmonise`).
    flags : tuple of str
        What does not add up and was left as written, as short codes (see `ionbed.spectra.harmonise`).
    """

    spectrum_id: str
    precursor_mz: float
    mz: np.ndarray = field(repr=False)
    intensity: np.ndarray = field(repr=False)
    source_file: str | None = None
    native_id: str | None = None
    usi: str | None = None
    charge: int | None = None
    polarity: int | None = None
    adduct: str | None = None
    ms_level: int | None = 2
    retention_time: float | None = None
    collision_energy: float | None = None
    collision_energy_raw: str | None = None
    instrument_type: str | None = None
    instrument: str | None = None
    smiles: str | None = None
    inchikey: str | None = None
    formula: str | None = None
    name: str | None = None
    chemical_class: str | None = None
    laboratory: str | None = None
    license: str | None = None
    grade: str | None = None
    predicted: bool = False
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of peaks."""
        return len(self.mz)

    @property
    def inchikey_block(self) -> str | None:
        """The first block of the InChIKey: the molecule without its stereochemistry and isotopes."""
        return self.inchikey[:14] if self.inchikey else None


METADATA_FIELDS = tuple(f.name for f in fields(Spectrum) if f.name not in {"mz", "intensity"})
"""Names of all fields of a `Spectrum` but its peaks, in the order of the store's columns."""
