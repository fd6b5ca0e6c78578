"""Exact duplicates: the same measurement written twice, as merged libraries hold by the thousand."""

from __future__ import annotations

import hashlib
import re
import struct

from .spectrum import Spectrum

_SAME_IN_COPIES = (
    "charge", "polarity", "adduct", "ms_level", "collision_energy_raw", "instrument_type", "instrument", "inchikey",
    "smiles", "formula", "predicted",
)  # fmt: skip


def measurement_key(spectrum: Spectrum) -> bytes:
    """Return 16 bytes that two cleaned spectra share if they are copies of one measurement.

    Copies agree in every peak, the precursor m/z, the retention time, the conditions (polarity, adduct, collision
    energy as written, instrument) and the molecule (by its name where nothing better is given). They may differ in what
    a library adds: identifiers, source, class, laboratory, licence. Peaks alone do not say it: two molecules, or two
    energies, can give the same single peak.
    """
    digest = hashlib.blake2b(digest_size=16)
    metadata = tuple(getattr(spectrum, name) for name in _SAME_IN_COPIES)
    if spectrum.inchikey is None and spectrum.formula is None:
        metadata += (spectrum.name,)
    digest.update(repr(metadata).encode("utf-8", "surrogatepass"))
    time = float("nan") if spectrum.retention_time is None else spectrum.retention_time
    digest.update(struct.pack("<ddq", spectrum.precursor_mz, time, len(spectrum)))
    digest.update(spectrum.mz.tobytes())
    digest.update(spectrum.intensity.tobytes())
    return digest.digest()


def stem_of_name(name: str) -> str:
    """Return an id without the numbers that `UniqueNames` may have put at its end ('a#2#3' -> 'a')."""
    return re.sub(r"(?:#\d+)+$", "", name)


class UniqueNames:
    """Gives every spectrum an id of its own: the one it asks for, or ``ID#2``, ``ID#3``... where that is taken."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last_number: dict[str, int] = {}

    def assign(self, name: str) -> str:
        """Return ``name`` or its first free variant, and take it."""
        unique = name
        number = self._last_number.get(name, 1)
        while unique in self._taken:
            number += 1
            unique = f"{name}#{number}"
            self._last_number[name] = number
        self._taken.add(unique)
        return unique
