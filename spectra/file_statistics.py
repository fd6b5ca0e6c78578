"""What is counted while a file is read, in bounded space: enough to grade the file and to draw what was in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final

from .harmonise import Dropped
from .record import RawRecord
from .spectrum import Spectrum

PEAK_EDGES: Final = (1, 2, 3, 5, 10, 20, 50, 100, 200)
"""Lower edges of the histogram of peaks per spectrum."""

HISTOGRAMS: Final = ("peaks", "precursor_mz", "retention_time", "collision_energy", "polarity", "charge", "ms_level")
"""``peaks`` counts by the edge in `PEAK_EDGES`, the three after it by multiples of their step (`STEPS`, by the lower
edge; the last bin holds all above), the others by value; -1 (0 for charge and polarity) stands for 'not known'. All but
``ms_level``, which counts every record that states one, are of spectra after cleaning."""

STEPS: Final = {"precursor_mz": (50, 2000), "retention_time": (60, 7200), "collision_energy": (5, 200)}
"""Width of a bin and the lower edge of the last one, in Da per charge, s and eV."""

_NOT_KNOWN: Final = -1
_UNDAMAGED: Final = frozenset({"deprecated", "no-peaks"})
_LARGEST_LEVEL = _LARGEST_CHARGE = 10
_MAX_PRECURSORS: Final = 512
_SAME_PRECURSOR: Final = 0.02
_SAME_FRAGMENT: Final = 0.25
_STRONG, _MAX_STRONG = 0.3, 4
_BINS_PER_DECADE: Final = 20
_SMALLEST_DEVIATION: Final = 1e-6
_LABELLED_SHARE = _TIMED_SHARE = 0.5
_MAX_DISORDER_OF_A_RUN: Final = 0.1
_MAX_DECIMALS: Final = 9


def is_damaged(record: RawRecord) -> bool:
    """Return whether a record is cut short or cannot be decoded."""
    return record.problem is not None and record.problem not in _UNDAMAGED


def decimals_of(record: RawRecord) -> int:
    """Return with how many decimals m/z are written: the most among the first four peaks, at most 9.

    Trailing zeros do not count, since numbers no longer have them; binary numbers have 9.
    """
    most = 0
    for mz in record.mz[:4].tolist():
        digits = repr(mz).partition(".")[2]
        if digits != "0" and len(digits) > most:
            most = len(digits)
    return min(most, _MAX_DECIMALS)


class FileStatistics:
    """Statistics of one file, or of consecutive records of one.

    Parts of a file may be counted apart and merged in their order. What depends on two neighbouring records (order of
    scans) is the same however the file is cut. The deviations between repeats are taken within what lies between two
    calls of `forget_precursors`, or within a part; who cuts a file where it is always cut gets always the same.

    Attributes
    ----------
    read, kept : int
        Records, and those of them that gave a spectrum.
    dropped : dict of str to int
        By reason; ``read == kept + sum(dropped.values())``.
    damaged : int
        Records that are cut short or cannot be decoded.
    scans : int
        Records that state their MS level, or whose spectrum has a retention time.
    out_of_order : int
        Scans that are earlier than the one before, or whose MS level skips one.
    timed, labelled : int
        Spectra with a retention time; with a structure or a formula.
    decimals : dict of int to int
        Spectra by the number of decimals of their m/z (`decimals_of`).
    deviations : dict of int to int
        Differences between the m/z of one fragment in two successive repeats of a precursor, by logarithmic bin.
    histograms : dict of str to dict of int to int
        See `HISTOGRAMS`.
    """

    def __init__(self) -> None:
        self.read = self.kept = self.damaged = self.scans = self.out_of_order = self.timed = self.labelled = 0
        self.dropped: dict[str, int] = {}
        self.decimals: dict[int, int] = {}
        self.deviations: dict[int, int] = {}
        self.histograms: dict[str, dict[int, int]] = {name: {} for name in HISTOGRAMS}
        self._first_level = self._last_level = 0
        self._first_time: float | None = None
        self._last_time: float | None = None
        self._strong_of: dict[tuple[int, int | None], list[float]] = {}

    def add(self, record: RawRecord, outcome: Spectrum | Dropped) -> None:
        """Count the next record of the file and what `ionbed.spectra.harmonise.harmonise` made of it."""
        self.read += 1
        text = record.fields.get("ms_level", "")
        level = min(int(text), _LARGEST_LEVEL) if text.isdecimal() else 0
        is_late = False
        if level:
            if not self._last_level:
                self._first_level = level
            is_late = 0 < self._last_level < level - 1
            self._last_level = level
            _count(self.histograms["ms_level"], level)
        time = None
        if isinstance(outcome, Dropped):
            _count(self.dropped, outcome.reason)
            self.damaged += is_damaged(record)
        else:
            self.kept += 1
            time = outcome.retention_time
            if time is not None:
                self.timed += 1
                if self._last_time is None:
                    self._first_time = time
                is_late |= self._last_time is not None and time < self._last_time
                self._last_time = time
            self._add_spectrum(record, outcome)
        self.scans += bool(level or time is not None)
        self.out_of_order += is_late

    def _add_spectrum(self, record: RawRecord, spectrum: Spectrum) -> None:
        self.labelled += (spectrum.smiles or spectrum.inchikey or spectrum.formula) is not None
        _count(self.decimals, decimals_of(record))
        counts = self.histograms
        num_peaks = len(spectrum.mz)
        _count(counts["peaks"], next(edge for edge in reversed(PEAK_EDGES) if edge <= num_peaks))
        _count(counts["precursor_mz"], _edge("precursor_mz", spectrum.precursor_mz))
        _count(counts["retention_time"], _edge("retention_time", spectrum.retention_time))
        _count(counts["collision_energy"], _edge("collision_energy", spectrum.collision_energy))
        _count(counts["polarity"], spectrum.polarity or 0)
        _count(counts["charge"], max(-_LARGEST_CHARGE, min(spectrum.charge or 0, _LARGEST_CHARGE)))
        self._compare_with_repeat(spectrum)

    def _compare_with_repeat(self, spectrum: Spectrum) -> None:
        """Note how far the strong fragments lie from those of the last spectrum of this precursor."""
        strong = spectrum.mz[spectrum.intensity >= _STRONG][:_MAX_STRONG].tolist()
        known = self._strong_of
        key = (round(spectrum.precursor_mz / _SAME_PRECURSOR), spectrum.polarity)
        for mz in known.pop(key, ()):
            deviation = min(abs(mz - other) for other in strong)
            if deviation < _SAME_FRAGMENT:
                ratio = max(deviation / _SMALLEST_DEVIATION, 1.0)
                _count(self.deviations, int(_BINS_PER_DECADE * math.log10(ratio)))
        known[key] = strong
        if len(known) > _MAX_PRECURSORS:
            del known[next(iter(known))]  # the one that was not seen for longest

    def merge(self, later: FileStatistics) -> None:
        """Add what was counted in the records that follow in the same file."""
        if self._last_level and later._first_level:
            self.out_of_order += self._last_level < later._first_level - 1
        if self._last_time is not None and later._first_time is not None:
            self.out_of_order += later._first_time < self._last_time
        self._first_level = self._first_level or later._first_level
        self._last_level = later._last_level or self._last_level
        self._first_time = later._first_time if self._first_time is None else self._first_time
        self._last_time = self._last_time if later._last_time is None else later._last_time
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        _add_counts(self.dropped, later.dropped)
        _add_counts(self.decimals, later.decimals)
        _add_counts(self.deviations, later.deviations)
        for name in HISTOGRAMS:
            _add_counts(self.histograms[name], later.histograms[name])
        self.forget_precursors()

    def forget_precursors(self) -> None:
        """Compare what follows with nothing before it, as if another part began."""
        self._strong_of = {}

    @property
    def is_run(self) -> bool:
        """Whether this is a run of an instrument and not a library or a list of features.

        A run has retention times, carries no structures, and is in the order of its scans, or holds survey scans.
        """
        if not self.kept or self.timed < _TIMED_SHARE * self.kept or self.labelled >= _LABELLED_SHARE * self.kept:
            return False
        return 1 in self.histograms["ms_level"] or self.out_of_order <= _MAX_DISORDER_OF_A_RUN * self.scans

    @property
    def num_deviations(self) -> int:
        """Number of deviations that `mass_spread` is estimated from."""
        return sum(self.deviations.values())

    @property
    def mass_spread(self) -> float | None:
        """Standard deviation in mDa of the m/z of a strong fragment, or None where no precursor was repeated.

        From the median of the absolute differences between successive repeats of a precursor (1.4826 times the median
        estimates the standard deviation of a difference, which is the square root of 2 times that of one measurement);
        at least what rounding to the decimals of the file adds. It tells how precise an instrument is, not how well it
        is calibrated.
        """
        if not self.deviations:
            return None
        median = _SMALLEST_DEVIATION * 10 ** ((_median(self.deviations) + 0.5) / _BINS_PER_DECADE)
        rounding = 10.0 ** -_median(self.decimals) / math.sqrt(12)
        return round(1e3 * max(1.4826 * median / math.sqrt(2), rounding), 5)

    def to_json(self) -> dict[str, Any]:
        """Return all of it but the memory of precursors, for JSON; see `from_json`."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "levels": [self._first_level, self._last_level],
            "times": [self._first_time, self._last_time],
            "dropped": dict(sorted(self.dropped.items())),
            "decimals": _with_text_keys(self.decimals),
            "deviations": _with_text_keys(self.deviations),
            "histograms": {name: _with_text_keys(counts) for name, counts in self.histograms.items()},
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> FileStatistics:
        """Return what `to_json` was called on."""
        made = cls()
        for name in _NUMBERS:
            setattr(made, name, int(tree[name]))
        made._first_level, made._last_level = tree["levels"]
        made._first_time, made._last_time = tree["times"]
        made.dropped = dict(tree["dropped"])
        made.decimals = _with_number_keys(tree["decimals"])
        made.deviations = _with_number_keys(tree["deviations"])
        made.histograms = {name: _with_number_keys(tree["histograms"][name]) for name in HISTOGRAMS}
        return made


_NUMBERS: Final = ("read", "kept", "damaged", "scans", "out_of_order", "timed", "labelled")


def _edge(name: str, value: float | None) -> int:
    if value is None:
        return _NOT_KNOWN
    step, last = STEPS[name]
    return max(0, min(int(value // step) * step, last))


def _median(counts: Mapping[int, int]) -> int:
    """Return the lower median of the keys, each taken as often as it was counted."""
    keys = sorted(counts)
    half = sum(counts.values()) / 2
    sums = accumulate(counts[key] for key in keys)
    return next(key for key, reached in zip(keys, sums, strict=True) if reached >= half)


def _count(counts: dict[Any, int], key: Any) -> None:
    counts[key] = counts.get(key, 0) + 1


def _add_counts(counts: dict[Any, int], others: Mapping[Any, int]) -> None:
    for key, number in others.items():
        counts[key] = counts.get(key, 0) + number


def _with_text_keys(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(key): counts[key] for key in sorted(counts)}


def _with_number_keys(counts: Mapping[str, int]) -> dict[int, int]:
    return {int(key): number for key, number in counts.items()}
