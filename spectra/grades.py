"""Quality grades A, B and C of a spectrum: by what the spectrum itself shows and by what the file it came from shows.

After the data set GeMS (Bushuiev et al., Nature Biotechnology 2025, doi:10.1038/s41587-025-02663-3), which grades runs
by the mass accuracy of the instrument and spectra by peaks, dynamic range, charge and m/z; unlike there, negative mode
is graded as positive mode is, and libraries are graded by the criteria that apply to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from .file_statistics import FileStatistics, decimals_of
from .record import RawRecord
from .spectrum import Spectrum

__all__ = [
    "BELOW",
    "DEFAULT_GRADES",
    "FileStatistics",
    "FileThresholds",
    "Grade",
    "GradeOptions",
    "GradeThresholds",
    "SpectrumThresholds",
    "grade_of_file",
    "grade_of_spectrum",
    "worse",
]

Grade = Literal["A", "B", "C", "-"]

BELOW: Grade = "-"
"""What is worse than C; there is nothing such unless thresholds for C are set."""

_BELOW_PRECURSOR = 1.5
_ABOVE_PRECURSOR = 3.0
_COUNTED = 0.01
_ORDER: dict[str, int] = {"A": 0, "B": 1, "C": 2, BELOW: 3}
_SCALED_TO = (1.0, 100.0, 999.0, 1000.0, 9999.0, 10000.0)
_HIGH_RESOLUTION = re.compile(r"tof|orbitrap|exactive|exploris|astral|(?<![a-z])(?:q|it|lt)?ft(?:ms|icr)?(?![a-z])|icr")
_LOW_RESOLUTION = re.compile(
    r"(?<![a-z])(?:q{1,3}|tq|q?l?it|qlit|qtrap)(?![a-z])|ion[ -]?trap|triple|quadrupole|quattro|ltq|lcq|amazon"
)


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1")


@dataclass(frozen=True)
class FileThresholds:
    """What a file must show for a grade; the defaults ask for nothing.

    All but ``max_damaged`` are asked of runs only (`FileStatistics.is_run`): a library is in no order of scans and may
    mix instruments. What cannot be known of a file (no precursor is fragmented twice) does not count against it.

    Attributes
    ----------
    min_spectra : int
        Spectra that can be used.
    max_out_of_order : float
        Share of the scans that are earlier than the scan before, or whose MS level skips one (an MS3 after an MS1).
    max_mass_spread : float or None
        In mDa. Standard deviation of the m/z of strong fragments between repeats of a precursor (`mass_spread`).
    min_repeats : int
        Deviations that the mass spread must be estimated from; with fewer it counts as not known.
    max_damaged : float
        Share of the records that are cut short or cannot be decoded.
    """

    min_spectra: int = 1
    max_out_of_order: float = 1.0
    max_mass_spread: float | None = None
    min_repeats: int = 20
    max_damaged: float = 1.0

    def __post_init__(self) -> None:
        if self.min_spectra < 1:
            raise ValueError(f"min_spectra is {self.min_spectra}; it must be 1 or more")
        _check_share("max_out_of_order", self.max_out_of_order)
        _check_share("max_damaged", self.max_damaged)
        if self.max_mass_spread is not None and not self.max_mass_spread > 0.0:
            raise ValueError(f"max_mass_spread is {self.max_mass_spread}; it must be above 0 mDa, or null")
        if self.min_repeats < 1:
            raise ValueError(f"min_repeats is {self.min_repeats}; it must be 1 or more")


@dataclass(frozen=True)
class SpectrumThresholds:
    """What a spectrum must show for a grade, after cleaning; the defaults ask for nothing.

    Attributes
    ----------
    min_high_peaks : int
        Peaks of at least ``high_intensity``.
    high_intensity : float
        Share of the base peak.
    min_fragments : int
        Peaks below the precursor m/z (by 1.5 or more) of at least 1 % of the base peak.
    min_fragment_intensity : float
        Share of the intensity that lies below the precursor: how far the precursor was fragmented.
    max_peaks : int or None
        Peaks of at least 1 % of the base peak. More are noise, or fragments of several precursors.
    min_dynamic_range : float
        Intensity of the base peak over that of the weakest peak.
    max_above_precursor : float
        Share of the intensity above the heaviest possible fragment (m/z of the precursor times its charges; once where
        the charge is not known) by more than 3 Da.
    min_precursor_mz, max_precursor_mz : float
        In Da per charge.
    max_charge : int or None
        Number of charges; a charge that is not known passes.
    polarity_known : bool
        Whether the polarity must be known.
    max_ms_level : int or None
        A level that is not stated passes.
    min_decimals : int
        Decimals with which m/z are written (the most among the first peaks): 0 or 1 is a nominal mass.
    high_resolution : bool
        Whether a spectrum whose instrument is stated to be a quadrupole or an ion trap fails.
    measured : bool
        Whether a predicted spectrum fails.
    min_base_peak : float or None
        Intensity of the base peak as the file writes it, in counts. Passed by spectra that are scaled (base peak 1,
        100, 999, ...), since they no longer say it.
    """

    min_high_peaks: int = 1
    high_intensity: float = 0.1
    min_fragments: int = 0
    min_fragment_intensity: float = 0.0
    max_peaks: int | None = None
    min_dynamic_range: float = 1.0
    max_above_precursor: float = 1.0
    min_precursor_mz: float = 0.0
    max_precursor_mz: float = 1e6
    max_charge: int | None = None
    polarity_known: bool = False
    max_ms_level: int | None = None
    min_decimals: int = 0
    high_resolution: bool = False
    measured: bool = False
    min_base_peak: float | None = None

    def __post_init__(self) -> None:
        for name in ("high_intensity", "min_fragment_intensity", "max_above_precursor"):
            _check_share(name, getattr(self, name))
        for name in ("min_high_peaks", "min_fragments", "min_decimals"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("max_peaks", "max_charge", "max_ms_level"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more, or null")
        if not self.min_precursor_mz < self.max_precursor_mz:
            raise ValueError(
                f"min_precursor_mz is {self.min_precursor_mz}; it must be below max_precursor_mz "
                f"({self.max_precursor_mz})"
            )


@dataclass(frozen=True)
class GradeThresholds:
    """What a grade asks of the file and of the spectrum."""

    file: FileThresholds = field(default_factory=FileThresholds)
    spectrum: SpectrumThresholds = field(default_factory=SpectrumThresholds)


_A = GradeThresholds(
    FileThresholds(min_spectra=3, max_out_of_order=0.01, max_mass_spread=2.5, max_damaged=0.01),
    SpectrumThresholds(
        min_high_peaks=3,
        min_fragments=4,
        min_fragment_intensity=0.1,
        max_peaks=128,
        min_dynamic_range=20.0,
        max_above_precursor=0.01,
        min_precursor_mz=50.0,
        max_precursor_mz=1000.0,
        max_charge=1,
        polarity_known=True,
        max_ms_level=2,
        min_decimals=3,
        high_resolution=True,
        measured=True,
    ),
)
_B = GradeThresholds(
    FileThresholds(min_spectra=3, max_out_of_order=0.1, max_mass_spread=10.0, max_damaged=0.1),
    SpectrumThresholds(
        min_high_peaks=1,
        min_fragments=2,
        min_fragment_intensity=0.02,
        max_peaks=256,
        min_dynamic_range=5.0,
        max_above_precursor=0.05,
        min_precursor_mz=50.0,
        max_precursor_mz=1500.0,
        max_charge=2,
        polarity_known=True,
        max_ms_level=3,
        min_decimals=2,
        high_resolution=True,
        measured=True,
    ),
)


@dataclass(frozen=True)
class GradeOptions:
    """How spectra are graded.

    Attributes
    ----------
    minimum : str
        Spectra of a worse grade are dropped.
    a, b, c : GradeThresholds
        What each grade asks. C asks for nothing unless told to: it is whatever cleaning keeps.
    """

    minimum: Literal["A", "B", "C"] = "C"
    a: GradeThresholds = _A
    b: GradeThresholds = _B
    c: GradeThresholds = field(default_factory=GradeThresholds)

    def __post_init__(self) -> None:
        if self.minimum not in ("A", "B", "C"):
            raise ValueError(f"minimum is {self.minimum!r}; it must be A, B or C")

    def is_dropped(self, grade: Grade) -> bool:
        """Return whether a spectrum of this grade is dropped."""
        return _ORDER[grade] > _ORDER[self.minimum]


DEFAULT_GRADES = GradeOptions()


def worse(first: Grade, second: Grade) -> Grade:
    """Return the worse of two grades."""
    return first if _ORDER[first] >= _ORDER[second] else second


def grade_of_file(statistics: FileStatistics, options: GradeOptions = DEFAULT_GRADES) -> Grade:
    """Return the best grade that the spectra of a file can have."""
    if _file_meets(statistics, options.a.file):
        return "A"
    if _file_meets(statistics, options.b.file):
        return "B"
    return "C" if _file_meets(statistics, options.c.file) else BELOW


def grade_of_spectrum(record: RawRecord, spectrum: Spectrum, options: GradeOptions = DEFAULT_GRADES) -> Grade:
    """Return the grade that a spectrum has by itself.

    Parameters
    ----------
    record : RawRecord
        As read; the decimals of its m/z and its absolute intensities count.
    spectrum : Spectrum
        What `ionbed.spectra.harmonise.harmonise` made of it.
    """
    features = _features(record, spectrum)
    if _meets(features, record, spectrum, options.a.spectrum):
        return "A"
    if _meets(features, record, spectrum, options.b.spectrum):
        return "B"
    return "C" if _meets(features, record, spectrum, options.c.spectrum) else BELOW


def _file_meets(statistics: FileStatistics, asked: FileThresholds) -> bool:
    if statistics.damaged > asked.max_damaged * statistics.read:
        return False
    if not statistics.is_run:
        return True
    if statistics.kept < asked.min_spectra or statistics.out_of_order > asked.max_out_of_order * statistics.scans:
        return False
    spread = statistics.mass_spread
    if asked.max_mass_spread is None or spread is None or statistics.num_deviations < asked.min_repeats:
        return True
    return spread <= asked.max_mass_spread


class _Features(NamedTuple):
    fragments: int
    fragment_intensity: float
    peaks: int
    dynamic_range: float
    above_precursor: float
    decimals: int
    high_resolution: bool


def _features(record: RawRecord, spectrum: Spectrum) -> _Features:
    mz, intensity = spectrum.mz, spectrum.intensity
    strong = intensity >= _COUNTED
    below = int(mz.searchsorted(np.float32(spectrum.precursor_mz - _BELOW_PRECURSOR)))
    heaviest = spectrum.precursor_mz * (abs(spectrum.charge) if spectrum.charge else 1)
    above = int(mz.searchsorted(np.float32(heaviest + _ABOVE_PRECURSOR)))
    total = float(intensity.sum())
    return _Features(
        fragments=int(np.count_nonzero(strong[:below])),
        fragment_intensity=float(intensity[:below].sum()) / total,
        peaks=int(np.count_nonzero(strong)),
        dynamic_range=1.0 / float(intensity.min()),
        above_precursor=float(intensity[above:].sum()) / total if above < len(mz) else 0.0,
        decimals=decimals_of(record),
        high_resolution=_may_be_of_high_resolution(spectrum.instrument_type, spectrum.instrument),
    )


def _meets(found: _Features, record: RawRecord, spectrum: Spectrum, asked: SpectrumThresholds) -> bool:
    return (
        found.fragments >= asked.min_fragments
        and found.fragment_intensity >= asked.min_fragment_intensity
        and (asked.max_peaks is None or found.peaks <= asked.max_peaks)
        and found.dynamic_range >= asked.min_dynamic_range
        and found.above_precursor <= asked.max_above_precursor
        and asked.min_precursor_mz <= spectrum.precursor_mz <= asked.max_precursor_mz
        and (asked.max_charge is None or abs(spectrum.charge or 0) <= asked.max_charge)
        and not (asked.polarity_known and spectrum.polarity is None)
        and (asked.max_ms_level is None or (spectrum.ms_level or 0) <= asked.max_ms_level)
        and found.decimals >= asked.min_decimals
        and not (asked.high_resolution and not found.high_resolution)
        and not (asked.measured and spectrum.predicted)
        and (
            asked.min_high_peaks <= 1  # the base peak is one
            or int(np.count_nonzero(spectrum.intensity >= asked.high_intensity)) >= asked.min_high_peaks
        )
        and (asked.min_base_peak is None or _base_peak_reaches(record, asked.min_base_peak))
    )


def _base_peak_reaches(record: RawRecord, least: float) -> bool:
    highest = float(np.nanmax(record.intensity))
    return highest >= least or any(abs(highest - scale) < 1e-3 * scale for scale in _SCALED_TO)


@lru_cache(maxsize=1024)
def _may_be_of_high_resolution(instrument_type: str | None, instrument: str | None) -> bool:
    """Return False where the type of the instrument, or else its name, is that of a quadrupole or an ion trap."""
    for text in (instrument_type, instrument):
        words = (text or "").lower()
        if _HIGH_RESOLUTION.search(words):
            return True
        if _LOW_RESOLUTION.search(words):
            return False
    return True
