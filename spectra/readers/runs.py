"""What mzML and mzXML share: one spectrum's XML parsed by itself, binary arrays, Thermo's collision energies.

Each spectrum is cut from the file as text and parsed alone, so that a damaged one costs only itself, a file cut short
gives what is whole, and a run of any size streams in constant memory, in as many processes as there are. Terms are
recognised by their PSI-MS accession; no vocabulary is needed at run time.

No library reads it so. pyteomics ends at the first damaged spectrum, takes junk in base64 and unknown compressions for
numbers, and needs twice the time on one core; pymzdata needs a quarter of it, but reads only whole files by their path,
panics or stops silently at a damaged spectrum, and knows no mzXML; pynumpress ends the process on damaged bytes. On
whole files all of them agree with what is here, which the tests prove; benchmarks/mzml_speed.py has the times.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from lxml import etree

NAME_PREFIX = rb"(?:[A-Za-z_][\w.-]*:)?"
"""What may stand before the name of an element: few writers use it, and all may."""
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_PREFIX = re.compile(rb"(</?)[A-Za-z_][\w.-]*:")
_DECLARED_NAMESPACE = re.compile(rb"""\sxmlns(?::[\w.-]+)?\s*=\s*(?:"[^"]*"|'[^']*')""")
_THERMO_ENERGY = re.compile(r"@(?:hcd|cid)(\d+(?:\.\d+)?)", re.IGNORECASE)


class BadArrayError(ValueError):
    """A binary array cannot be decoded; ``code`` is the reason for the report."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def encoding_of(header: bytes) -> str:
    """Return the encoding that the XML declaration names, UTF-8 where it names none."""
    declared = _ENCODING.search(header[:1024])
    return declared[1].decode("ascii") if declared else "utf-8"


def parse_fragment(fragment: bytes, encoding: str) -> etree._Element | None:
    """Return the element that ``fragment`` is, its names without namespaces.

    None where it is not well-formed XML in that encoding.
    """
    start_tag = fragment[: fragment.find(b">")]
    if b":" in start_tag.split(None, 1)[0]:  # prefixes, declared at the root of the file
        fragment = _PREFIX.sub(rb"\1", fragment)
    if b"xmlns" in start_tag:
        fragment = _DECLARED_NAMESPACE.sub(b"", start_tag) + fragment[len(start_tag) :]
    try:
        return etree.fromstring(fragment, _parser(encoding))
    except (etree.XMLSyntaxError, LookupError):
        return None


@lru_cache(maxsize=8)
def _parser(encoding: str) -> etree.XMLParser:
    return etree.XMLParser(
        encoding=encoding,
        huge_tree=True,
        resolve_entities=False,
        no_network=True,
        remove_comments=True,
        remove_pis=True,
    )


def parse_open_document(header: bytes) -> etree._Element | None:
    """Return the root of a document of which only the beginning is there, None where there is none."""
    parser = etree.XMLParser(
        recover=True, huge_tree=True, resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(header, parser)
    except etree.XMLSyntaxError:
        return None


def is_whole_run(
    header: bytes, last: bytes, num_records: int, *, count: re.Pattern[bytes], end: re.Pattern[bytes]
) -> bool:
    """Return whether ``end`` follows the last record; of a run without records, whether it states that it has none.

    A larger number stated, where ``count`` finds it in the header, than found is no sign of damage: tools that shorten
    runs leave it as it was. A run that states no number and is closed has none (chromatograms only).
    """
    if num_records == 0:
        stated = count.search(header)
        return stated[1] == b"0" if stated else b"</mzML>" in header or b"</msRun>" in header
    return end.search(last) is not None


def decode_binary(text: str, dtype: str, *, is_zlib: bool) -> np.ndarray:
    """Return the float64 array that base64 ``text`` holds as little- or big-endian ``dtype``.

    Raises
    ------
    BadArrayError
        It is not base64, not zlib, or not a whole number of values.
    """
    data = decode_bytes(text, is_zlib=is_zlib)
    if len(data) % np.dtype(dtype).itemsize:
        raise BadArrayError("bad-binary-array")
    return np.frombuffer(data, dtype).astype(np.float64)


def decode_bytes(text: str, *, is_zlib: bool) -> bytes:
    """Return the bytes that base64 ``text`` holds, inflated where ``is_zlib``."""
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
        return zlib.decompress(data) if is_zlib and data else data
    except (binascii.Error, ValueError, zlib.error):
        raise BadArrayError("bad-binary-array") from None


def energy_text(energies: Sequence[str], unit: str, filter_text: str) -> str:
    """Return the energies of one activation with their unit, as `ionbed.spectra.collision_energy` reads them.

    Converters write Thermo's normalised energy as if it were electronvolts; a filter text with the same number, or one
    of the steps ('... 482.3@hcd35.00 ...'), shows where it is from.
    """
    normalised = {float(energy) for energy in _THERMO_ENERGY.findall(filter_text)}
    if unit != "(NCE)" and any(_number(energy) in normalised for energy in energies):
        unit = "(NCE)"
    text = f"{', '.join(energies)} {unit}".strip()
    return f"{text} (stepped)" if len(energies) > 1 else text


def filter_energy(filter_text: str) -> str | None:
    """Return the normalised energy of the last activation that a Thermo filter text names, as it stands there."""
    energies = _THERMO_ENERGY.findall(filter_text)
    return energies[-1] if energies else None


def positive(text: str | None) -> bool:
    """Return whether a text is a number above zero, as an m/z has to be."""
    value = _number(text)
    return value is not None and value > 0


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
