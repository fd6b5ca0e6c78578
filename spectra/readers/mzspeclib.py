"""Read spectral libraries in mzSpecLib text (HUPO-PSI mzSpecLib 1.0)."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .blocks import Parsed, RecordFormat
from .field_names import field_of, native_id_of, normal_key, with_unit
from .text import BadPeakLineError, decode, is_wanted, ms_level, parse_peaks, whole_number

_FIRST_LINE = re.compile(rb"\s*(?:#[^\n]*\n\s*)*<(?:mzSpecLib\b|Spectrum\s*=)", re.IGNORECASE)
_LINE = re.compile(rb"^[ \t]*(?:<([A-Za-z]+)|(?:\[\w+\])?[A-Z]+:\w+\|)", re.MULTILINE)
_MARKER = re.compile(r"<(Spectrum|Analyte|InterpretationMember|Interpretation|Cluster|Peaks)(?:\s*=\s*([^>]*))?>\s*")
_SET = re.compile(r"<AttributeSet\s+(\w+)\s*=\s*([^>]*?)\s*>")
_ATTRIBUTE = re.compile(r"(?:\[(\w+)\])?([A-Za-z][\w.]*:\w+)\|([^=]*?)\s*=\s*(.*)")
_TERM = re.compile(r"[A-Za-z][\w.]*:\w+\|(.+)")

_SET_NAME, _UNIT = "MS:1003212", "UO:0000000"
_OTHER_NAME, _OTHER_VALUE = "MS:1003275", "MS:1003276"
_ENERGY, _NORMALISED_ENERGY = "MS:1000045", "MS:1000138"
_RAMPS = (("MS:1002013", "MS:1002014", "eV"), ("MS:1002218", "MS:1002219", "(NCE)"))
_NUM_PEAKS, _KEY, _ORIGIN = "MS:1003059", "MS:1003237", "MS:1003072"
_PERCENT, _SECOND, _MINUTE = "UO:0000187", "UO:0000010", "UO:0000031"

_SPECTRUM_FIELDS: dict[str, tuple[str, ...]] = {  # the accessions that give a field, the surest first
    "precursor_mz": ("MS:1003208", "MS:1000744", "MS:1000827", "MS:1003053"),
    "charge": ("MS:1000041",),
    "polarity": ("MS:1000465",),
    "ms_level": ("MS:1000511",),
    "activation": ("MS:1000044",),
    "instrument": ("MS:1000031",),
    "instrument_type": ("MS:1000443",),
    "name": ("MS:1003061",),
    "license": ("MS:1003197",),
    "usi": ("MS:1003063",),
    "spectrum_type": (_ORIGIN,),
}
_TIMES = ("MS:1000894", "MS:1000016", "MS:1000826", "MS:1000895")
_ANALYTE_FIELDS: dict[str, tuple[str, ...]] = {
    "smiles": ("MS:1000868",),
    "inchi": ("MS:1003403",),
    "inchikey": ("MS:1002894",),
    "formula": ("MS:1000866",),
    "adduct": ("MS:1002813",),
    "charge": ("MS:1000041",),
    "precursor_mz": ("MS:1003053",),
}


class _Attribute(NamedTuple):
    accession: str
    value: str
    group: str


Sets = Mapping[tuple[str, str], Sequence[_Attribute]]


@dataclass(frozen=True)
class Library:
    """What stands before the spectra: attributes of the whole library, and sets of attributes for its parts.

    Attributes
    ----------
    attributes : sequence of attributes
    sets : mapping of (kind, name) to attributes
        Kinds are 'spectrum' and 'analyte' (and others, which are not used); the set 'all' holds for every part.
    """

    attributes: Sequence[_Attribute] = ()
    sets: Sets = field(default_factory=dict)


def attribute(accession: str, value: str, group: str = "") -> _Attribute:
    """Return one attribute; of a value that is a term, ``MS:1000130|positive scan``, only the name is kept."""
    value = value.strip()
    if term := _TERM.fullmatch(value):
        value = value.partition("|")[0] if accession == _UNIT else term[1]
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return _Attribute(accession, value, group)


def _starts(data: bytes) -> list[int]:
    """Return the offsets of '<Spectrum', and where one is lost that of the first attribute or marker after peaks.

    So a record whose first line is broken does not run into the one before it.
    """
    starts, after_peaks = [], False
    for line in _LINE.finditer(data):
        marker = line[1]
        if marker == b"Peaks":
            after_peaks = True
        elif marker == b"Cluster":
            after_peaks = False
        elif after_peaks or marker == b"Spectrum":
            starts.append(line.start())
            after_peaks = False
    return starts


def _parse_header(header: bytes) -> Library:
    attributes: list[_Attribute] = []
    sets: dict[tuple[str, str], list[_Attribute]] = {}
    target = attributes
    for line in decode(header)[0].split("\n"):
        line = line.strip()
        if line.startswith("<"):
            if line.startswith("<Cluster"):
                break
            if named := _SET.fullmatch(line):
                target = sets.setdefault((named[1].lower(), named[2]), [])
        elif found := _ATTRIBUTE.match(line):
            target.append(attribute(found[2], found[4], found[1] or ""))
    return Library(attributes, sets)


def _parse_record(data: bytes, library: Library, ms_levels: Container[int], is_last: bool) -> Parsed:
    text, repairs = decode(data)
    key, spectrum, analytes, body = _sections(text)
    native_id, fields, num_stated, notes = interpret(library, key, spectrum, analytes)
    repairs += notes
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields, repairs=repairs)
    if not body.strip():
        return Parsed(native_id, fields, problem="truncated" if is_last and num_stated != 0 else "no-peaks")
    if is_last and _ends_in_a_peak(body):
        return Parsed(native_id, fields, problem="truncated")
    try:
        mz, intensity, more = parse_peaks(body)
    except BadPeakLineError:
        is_cut = is_last and not data.endswith(b"\n")
        return Parsed(native_id, fields, problem="truncated" if is_cut else "bad-peak-line")
    if num_stated is not None and num_stated != len(mz):
        if is_last and num_stated > len(mz):
            return Parsed(native_id, fields, problem="truncated")
        more += ("peak-count",)
    return Parsed(native_id, fields, mz, intensity, None, repairs + more)


def _sections(text: str) -> tuple[str, list[_Attribute], list[list[_Attribute]], str]:
    """Return the spectrum's key, its attributes, those of each analyte, and the lines of peaks."""
    key = ""
    spectrum: list[_Attribute] = []
    analytes: list[list[_Attribute]] = []
    target: list[_Attribute] | None = spectrum
    offset = 0
    for line in text.split("\n"):
        offset += len(line) + 1
        stripped = line.strip()
        if marker := _MARKER.match(stripped):
            kind = marker[1]
            if kind == "Peaks":
                return key, spectrum, analytes, _peak_lines(text[offset:])
            if kind == "Spectrum":
                key = (marker[2] or "").strip()
            elif kind == "Analyte":
                analytes.append([])
                target = analytes[-1]
            elif kind == "Cluster":
                break
            else:
                target = None
        elif target is not None and (found := _ATTRIBUTE.match(stripped)):
            target.append(attribute(found[2], found[4], found[1] or ""))
    return key, spectrum, analytes, ""


def _peak_lines(text: str) -> str:
    """Return the lines up to an empty one or the next section, without comments."""
    body = text.lstrip("\n")
    for end in ("\n\n", "\n<"):
        body = body.partition(end)[0]
    if body.startswith("<"):
        return ""
    if "#" in body:
        body = "\n".join(line for line in body.split("\n") if not line.lstrip().startswith("#"))
    return body


def _ends_in_a_peak(body: str) -> bool:
    """Return whether the last line has no end and lacks columns of the line before: it may be cut in a number."""
    before, line_feed, last = body.rpartition("\n")
    if not line_feed or not last.strip():
        return False
    return last.count("\t") < before.rpartition("\n")[2].count("\t")


def interpret(
    library: Library, key: str, spectrum: Sequence[_Attribute], analytes: Sequence[Sequence[_Attribute]]
) -> tuple[str, dict[str, str], int | None, tuple[str, ...]]:
    """Return native id, fields, the number of peaks as stated, and repairs of one spectrum of a library.

    What a spectrum says itself goes before the attribute sets that it names, these before the set 'all', and this
    before what is said of the whole library. Of several analytes only what they agree on is taken, for which of them
    the spectrum is of cannot be told.
    """
    levels = [*_levels(library, "spectrum", spectrum), library.attributes]
    fields: dict[str, str] = {}
    for name, accessions in _SPECTRUM_FIELDS.items():
        if value := _first(levels, accessions):
            fields[name] = value
    entries: dict[str, str] = {}
    for name, value in _other_attributes(levels):
        entries.setdefault(normal_key(name), value)
        if other := field_of(name):
            if other == "instrument_type":
                fields[other] = value  # says more than the type of the mass analyser
            else:
                fields.setdefault(other, with_unit(name, value))
    repairs = _take_analytes(fields, [_levels(library, "analyte", analyte) for analyte in analytes])
    if energy := _collision_energy(levels):
        fields["collision_energy"] = energy
    repairs += _take_time(fields, levels)
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    if "decoy" in fields.get("spectrum_type", ""):
        fields["predicted"] = "true"
    stated_key = key or _first(levels, (_KEY,))
    native_id = native_id_of(entries) or (f"Spectrum={stated_key}" if stated_key else "")
    return native_id, fields, whole_number(_first(levels[:1], (_NUM_PEAKS,))), repairs


def _levels(library: Library, kind: str, own: Sequence[_Attribute]) -> list[Sequence[_Attribute]]:
    """Return a part's own attributes, those of the sets that it names, and those of the set 'all'."""
    named = [library.sets.get((kind, a.value), ()) for a in own if a.accession == _SET_NAME]
    return [own, *named, library.sets.get((kind, "all"), ())]


def _first(levels: Iterable[Sequence[_Attribute]], accessions: Sequence[str]) -> str:
    for attributes in levels:
        for accession in accessions:
            for a in attributes:
                if a.accession == accession and a.value:
                    return a.value
    return ""


def _take_analytes(fields: dict[str, str], analytes: Sequence[Sequence[Sequence[_Attribute]]]) -> tuple[str, ...]:
    """Add what the analytes say to ``fields``; what they disagree on is left out."""
    repairs: tuple[str, ...] = ()
    for name, accessions in _ANALYTE_FIELDS.items():
        values = {value for levels in analytes if (value := _first(levels, accessions))}
        if len(values) == 1:
            fields.setdefault(name, values.pop())
        elif values:
            repairs = ("several-analytes",)
    if len(analytes) == 1:
        for key, value in _other_attributes(analytes[0]):
            if other := field_of(key):
                fields.setdefault(other, value)
    return repairs


def _other_attributes(levels: Iterable[Sequence[_Attribute]]) -> list[tuple[str, str]]:
    """Return the names and values that have no term of their own."""
    found = []
    for attributes in levels:
        names = {a.group: a.value for a in attributes if a.accession == _OTHER_NAME}
        found += [(names[a.group], a.value) for a in attributes if a.accession == _OTHER_VALUE and a.group in names]
    return found


def _unit(attributes: Sequence[_Attribute], group: str) -> str:
    return next((a.value for a in attributes if a.accession == _UNIT and a.group == group and group), "")


def _collision_energy(levels: Iterable[Sequence[_Attribute]]) -> str:
    """Return the collision energy with its unit; several are the steps of one."""
    for attributes in levels:
        for start, end, unit in _RAMPS:
            bounds = [_first([attributes], (accession,)) for accession in (start, end)]
            if all(bounds):
                return f"Ramp {bounds[0]}-{bounds[1]} {unit}"
        for accession in (_NORMALISED_ENERGY, _ENERGY):
            energies = {}
            for a in attributes:
                if a.accession == accession and a.value:
                    is_normalised = accession == _NORMALISED_ENERGY or _unit(attributes, a.group) == _PERCENT
                    energies[a.value] = "(NCE)" if is_normalised else "eV"
            if energies:
                unit = next(iter(energies.values()))
                value = "/".join(energies)
                return value if re.search(r"[A-Za-z%]", value) else f"{value} {unit}"
    return ""


def _take_time(fields: dict[str, str], levels: Iterable[Sequence[_Attribute]]) -> tuple[str, ...]:
    """Set the retention time with its unit; a time without one may be in seconds or minutes and is left out."""
    units = {_SECOND: "s", _MINUTE: "min"}
    for attributes in levels:
        for accession in _TIMES:
            for a in attributes:
                if a.accession == accession and a.value:
                    unit = units.get(_unit(attributes, a.group))
                    if unit is None:
                        return ("retention-time-without-unit",)
                    fields["retention_time"] = f"{a.value} {unit}"
                    return ()
    return ()


MZSPECLIB = RecordFormat(
    name="mzSpecLib",
    extensions=("mzspeclib", "mzlib", "mzlb"),
    looks_like=lambda head: _FIRST_LINE.match(head) is not None,
    starts=_starts,
    parse_header=_parse_header,
    parse_record=_parse_record,
    marks_ends=False,
)
