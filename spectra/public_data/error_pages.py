"""Tell data from what a server sends instead: an HTML, XML or JSON message, or the pointer to a file elsewhere."""

from __future__ import annotations

import json
import re

HEAD_BYTES = 1 << 13
"""How much of a file's start `refusal` wants to see."""

_MAGIC = {
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".gz": (b"\x1f\x8b",),
    ".tgz": (b"\x1f\x8b",),
    ".hdf5": (b"\x89HDF\r\n\x1a\n",),
    ".h5": (b"\x89HDF\r\n\x1a\n",),
    ".parquet": (b"PAR1",),
}
"""The first bytes that a name's ending promises."""

_TEXT_ENDINGS = (".mgf", ".msp", ".txt", ".tsv", ".csv", ".json", ".jsonl", ".smi", ".sdf", ".mol", ".fasta", ".pdf")
"""Of files that are no XML; many that hold XML have an ending of their own, as those of vendors (.xsd, .method)."""

_HTML_ENDINGS = (".html", ".htm", ".xhtml")
_HTML = re.compile(rb"<!doctype html|<html[\s>]", re.IGNORECASE)
_XML_ERROR = re.compile(rb"<(?:\w+:)?(?:error|errors|html|fault)[\s>/]", re.IGNORECASE)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ERROR_KEYS = {"error", "errors", "exception", "traceback"}
_ERROR_MESSAGE_KEYS = {"message", "detail", "details", "status", "code", "title", "type", "success", "ok", "path"}


def refusal(head: bytes, name: str, is_whole: bool) -> str | None:
    """Return what a response is where it cannot be the file that was asked for, None where it may be.

    Parameters
    ----------
    head : bytes
        Its first `HEAD_BYTES`, or all of it.
    name : str
        Of the file, whose ending says what to expect.
    is_whole : bool
        Whether ``head`` is all of it.
    """
    name = name.lower()
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for ending, magics in _MAGIC.items():
        if name.endswith(ending) and not head.startswith(magics):
            return f"{_kind(start, is_whole)}, not a {ending} file"
    if start.startswith(_LFS_POINTER):
        return "the pointer to a file in Git LFS, not the file"
    if _HTML.match(start) and not name.endswith(_HTML_ENDINGS):
        return "an HTML page, not data" + _title(start)
    if start.startswith(b"<?xml") or _XML_ERROR.match(start):
        root = re.sub(rb"^(?:\s|<\?.*?\?>|<!--.*?-->)+", b"", start, flags=re.DOTALL)
        if name.endswith(_TEXT_ENDINGS) or (_XML_ERROR.match(root) and not name.endswith(_HTML_ENDINGS)):
            return "an XML message, not data"
    if is_whole and _is_json_error(start):
        return f"a JSON message, not data ({_excerpt(start)})"
    return None


def printable(text: str) -> str:
    """Return a text of a stranger in which nothing steers a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _is_json_error(start: bytes) -> bool:
    if not start.startswith(b"{"):
        return False
    try:
        keys = {str(key).lower() for key in json.loads(start)}
    except (ValueError, RecursionError):
        return False
    return bool(keys & _ERROR_KEYS) or (bool(keys) and keys <= _ERROR_MESSAGE_KEYS)


def _kind(start: bytes, is_whole: bool) -> str:
    if not start:
        return "nothing at all"
    if _HTML.match(start):
        return "an HTML page" + _title(start)
    if start.startswith(_LFS_POINTER):
        return "the pointer to a file in Git LFS"
    if start.startswith(b"<"):
        return "an XML message"
    if is_whole and _is_json_error(start):
        return f"a JSON message ({_excerpt(start)})"
    return "something else"


def _title(start: bytes) -> str:
    found = re.search(rb"<title[^>]*>(.*?)</title>", start, re.IGNORECASE | re.DOTALL)
    return f" ('{_excerpt(found[1])}')" if found and found[1].strip() else ""


def _excerpt(text: bytes) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text.decode("utf-8", "replace")).split())[:80]
