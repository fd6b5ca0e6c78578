"""Damage a text record as transfers, editors and converters do: one seeded mutator for the tests of all formats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

HUGE = (b"1e999", b"-1e308", b"9" * 400, b"1e-400", b"-0", b"nan", b"inf", b"0x1F", b"1,5")
FOREIGN = (
    b"\x00",
    b"\x00\x00\x00\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xe9",
    b"\x1a",
    b"\r",
    b"\t",
    b"\x0c",
    b'"',
    b"{",
)


def mutate(record: bytes, rng: np.random.Generator) -> bytes:
    """Return ``record`` after one to four changes: of bits, bytes, numbers or lines, or cut short anywhere."""
    for _ in range(int(rng.integers(1, 5))):
        if record:
            record = CHANGES[rng.integers(len(CHANGES))](record, rng)
    return record


def mutate_json(record: bytes, rng: np.random.Generator) -> bytes:
    """Return ``record`` as `mutate` returns it or, every other time, with one mark of its structure lost or added."""
    marks = b'{}[]",:\\'
    if rng.random() < 0.5:
        return mutate(record, rng)
    if rng.random() < 0.5:
        at, mark = int(rng.integers(len(record) + 1)), int(rng.integers(len(marks)))
        return record[:at] + marks[mark : mark + 1] + record[at:]
    places = [place for place, byte in enumerate(record) if byte in marks]
    at = places[int(rng.integers(len(places)))]
    return record[:at] + record[at + 1 :]


def _span(record: bytes, rng: np.random.Generator, longest: int) -> tuple[int, int]:
    start = int(rng.integers(len(record)))
    return start, start + int(rng.integers(1, longest + 1))


def flip_a_bit(record: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(record)))
    return record[:at] + bytes([record[at] ^ (1 << int(rng.integers(8)))]) + record[at + 1 :]


def delete_bytes(record: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(record, rng, 20)
    return record[:start] + record[stop:]


def repeat_bytes(record: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(record, rng, 60)
    return record[:stop] + record[start:]


def insert_bytes(record: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(record) + 1))
    return record[:at] + rng.bytes(int(rng.integers(1, 12))) + record[at:]


def insert_foreign_bytes(record: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(record) + 1))
    return record[:at] + FOREIGN[rng.integers(len(FOREIGN))] + record[at:]


def cut_short(record: bytes, rng: np.random.Generator) -> bytes:
    return record[: int(rng.integers(len(record)))]


def write_a_huge_number(record: bytes, rng: np.random.Generator) -> bytes:
    words = record.split(b" ")
    words[rng.integers(len(words))] = HUGE[rng.integers(len(HUGE))]
    return b" ".join(words)


def _change_lines(change: Callable[[list[bytes], int, int], None]) -> Callable[[bytes, np.random.Generator], bytes]:
    def changed(record: bytes, rng: np.random.Generator) -> bytes:
        lines = record.split(b"\n")
        change(lines, int(rng.integers(len(lines))), int(rng.integers(len(lines))))
        return b"\n".join(lines)

    return changed


def _delete(lines: list[bytes], first: int, _second: int) -> None:
    del lines[first]


def _repeat(lines: list[bytes], first: int, second: int) -> None:
    lines.insert(second, lines[first])


def _swap(lines: list[bytes], first: int, second: int) -> None:
    lines[first], lines[second] = lines[second], lines[first]


def _merge(lines: list[bytes], first: int, _second: int) -> None:
    lines[first : first + 2] = [b"".join(lines[first : first + 2])]


def _break(lines: list[bytes], first: int, _second: int) -> None:
    middle = len(lines[first]) // 2
    lines[first : first + 1] = [lines[first][:middle], lines[first][middle:]]


def _empty(lines: list[bytes], first: int, _second: int) -> None:
    lines.insert(first, b"")


CHANGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    flip_a_bit,
    delete_bytes,
    repeat_bytes,
    insert_bytes,
    insert_foreign_bytes,
    cut_short,
    write_a_huge_number,
    *map(_change_lines, (_delete, _repeat, _swap, _merge, _break, _empty)),
)
