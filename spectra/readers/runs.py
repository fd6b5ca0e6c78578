"""What mzML and mzXML share: one spectrum's XML parsed by itself, and binary arrays.

Each spectrum is cut from the file as text and parsed alone, so that a damaged one costs only itself, a file cut short
gives what is whole, and a run of any size streams in constant memory. Terms are recognised by their PSI-MS accession;
no vocabulary is needed at run time.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib

import numpy as np
from lxml import etree

_ENCODING = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")


class BadArrayError(ValueError):
    """A binary array cannot be decoded; ``code`` is the reason for the report."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def encoding_of(header: bytes) -> bytes:
    """Return the encoding that the XML declaration names, UTF-8 where it names none."""
    declared = _ENCODING.search(header[:1024])
    return declared[1] if declared else b"utf-8"


def parse_fragment(fragment: bytes, encoding: bytes) -> etree._Element | None:
    """Return the element that ``fragment`` is, None where it is not well-formed XML in that encoding."""
    return _parse(b'<?xml version="1.0" encoding="' + encoding + b'"?>' + fragment, recover=False)


def parse_open_document(header: bytes) -> etree._Element | None:
    """Return the root of a document of which only the beginning is there, None where there is none."""
    return _parse(header, recover=True)


def is_whole_run(header: bytes, last: bytes, num_records: int, *, count: re.Pattern[bytes], end: bytes) -> bool:
    """Return whether ``end`` follows the last record; of a run without records, whether it states that it has none.

    A larger number stated, where ``count`` finds it in the header, than found is no sign of damage: tools that shorten
    runs leave it as it was.
    """
    if num_records == 0:
        stated = count.search(header)
        return stated is not None and stated[1] == b"0"
    return end in last


def _parse(text: bytes, *, recover: bool) -> etree._Element | None:
    parser = etree.XMLParser(
        huge_tree=True, recover=recover, resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(text, parser)
    except etree.XMLSyntaxError:
        return None


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
