"""Decode MS-Numpress arrays (Teleman et al., Mol. Cell. Proteomics 13, 2014: 1537), an option of mzML writers."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from .runs import BadArrayError


def decode_linear(data: bytes) -> np.ndarray:
    """Return float64 values from linear prediction compression (m/z as a rule)."""
    if not data:
        return np.empty(0)
    if len(data) < 8:
        raise BadArrayError("bad-binary-array")
    scale = _fixed_point(data)
    head = data[8:16]
    if len(head) not in (0, 4, 8):
        raise BadArrayError("bad-binary-array")
    values = list(struct.unpack(f"<{len(head) // 4}i", head))
    if len(values) == 2:
        previous, last = values
        for residual in _half_byte_integers(data[16:]):
            previous, last = last, 2 * last - previous + residual
            values.append(last)
    return np.array(values, np.float64) / scale


def decode_pic(data: bytes) -> np.ndarray:
    """Return float64 values from positive integer compression (counts)."""
    return np.array([value & 0xFFFFFFFF for value in _half_byte_integers(data)], np.float64)


def decode_slof(data: bytes) -> np.ndarray:
    """Return float64 values from short logged float compression (intensities)."""
    if not data:
        return np.empty(0)
    if len(data) < 8 or len(data) % 2:
        raise BadArrayError("bad-binary-array")
    logarithms = np.frombuffer(data, "<u2", offset=8) / _fixed_point(data)
    if logarithms.size and logarithms.max() > 700:  # no float64 is that large
        raise BadArrayError("bad-binary-array")
    return np.exp(logarithms) - 1


def _fixed_point(data: bytes) -> float:
    scale = struct.unpack(">d", data[:8])[0]
    if not (np.isfinite(scale) and scale > 0):
        raise BadArrayError("bad-binary-array")
    return float(scale)


def _half_byte_integers(data: bytes) -> Iterator[int]:
    """Yield 32-bit integers written as half bytes: a count of left-out ones, then the rest from the lowest.

    A first half byte up to 8 counts leading zeros; above 8, less 8, leading half bytes of ones (a negative number).
    """
    half_bytes = [half for byte in data for half in (byte >> 4, byte & 0xF)]
    index, end = 0, len(half_bytes)
    while index < end:
        first = half_bytes[index]
        # An odd number of half bytes is filled with one zero, which would otherwise promise eight more.
        if index == end - 1 and first != 8:
            return
        index += 1
        num_left_out = first if first <= 8 else first - 8
        value = 0 if first <= 8 else (0xFFFFFFFF << (4 * (8 - num_left_out))) & 0xFFFFFFFF
        num_given = 8 - num_left_out
        if index + num_given > end:
            raise BadArrayError("bad-binary-array")
        for shift in range(num_given):
            value |= half_bytes[index + shift] << (4 * shift)
        index += num_given
        yield value - (1 << 32) if value & 0x80000000 else value
