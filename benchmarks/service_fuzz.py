"""Sends mutated files to a service on this machine and counts the answers: nothing but 2xx, 4xx and 503 may come.

Every file is a small one of a format that ionbed reads, packed or not, with bytes changed, cut, doubled or put together
with others; the seed decides which. Usage: python benchmarks/service_fuzz.py [--files 10000] [--seed 0] [--seconds 300]
"""

from __future__ import annotations

import argparse
import asyncio
import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PEAKS = [(58.0651, 12.0), (91.0542, 40.5), (119.0855, 100.0), (147.0804, 33.3), (178.0863, 7.1)]
CLIENTS = 4


def seeds() -> dict[str, bytes]:
    """Return small whole files by name."""
    lines = "".join(f"{mz} {intensity}\n" for mz, intensity in PEAKS)
    mgf = (
        f"BEGIN IONS\nTITLE=one\nPEPMASS=195.0877\nCHARGE=1+\nSMILES=CN1C=NC2=C1C(=O)N(C(=O)N2C)C\n{lines}END IONS\n\n"
        * 2
    )
    msp = f"NAME: two\nPRECURSORMZ: 195.0877\nPRECURSORTYPE: [M+H]+\nIONMODE: Positive\nNum Peaks: 5\n{lines}\n" * 2
    massbank = (
        "ACCESSION: MSBNK-Made-XX000001\nRECORD_TITLE: Made; LC-ESI-QTOF; MS2\nLICENSE: CC0\nCH$NAME: Made\n"
        "CH$SMILES: CC(=O)Nc1ccc(O)cc1\nAC$MASS_SPECTROMETRY: MS_TYPE MS2\nAC$MASS_SPECTROMETRY: ION_MODE POSITIVE\n"
        "MS$FOCUSED_ION: PRECURSOR_M/Z 152.0706\nMS$FOCUSED_ION: PRECURSOR_TYPE [M+H]+\nPK$NUM_PEAK: 5\n"
        "PK$PEAK: m/z int. rel.int.\n" + "".join(f"  {mz} {i} {i:.0f}\n" for mz, i in PEAKS) + "//\n"
    )
    gnps = json.dumps(
        [
            {
                "spectrum_id": "CCMSLIB00000000001",
                "Precursor_MZ": "195.0877",
                "Ion_Mode": "Positive",
                "peaks_json": json.dumps(PEAKS),
            }
        ]
    )
    mzml = (
        '<?xml version="1.0" encoding="utf-8"?>\n<mzML xmlns="http://psi.hupo.org/ms/mzml"><run id="r">'
        '<spectrumList count="1"><spectrum index="0" id="scan=1" defaultArrayLength="2">'
        '<cvParam accession="MS:1000511" name="ms level" value="2"/>'
        '<precursorList count="1"><precursor><selectedIonList count="1"><selectedIon>'
        '<cvParam accession="MS:1000744" name="selected ion m/z" value="195.0877"/></selectedIon></selectedIonList>'
        '</precursor></precursorList><binaryDataArrayList count="2"><binaryDataArray encodedLength="24">'
        '<cvParam accession="MS:1000523"/><cvParam accession="MS:1000576"/><cvParam accession="MS:1000514"/>'
        '<binary>AAAAAAAAWUAAAAAAAEBfQA==</binary></binaryDataArray><binaryDataArray encodedLength="24">'
        '<cvParam accession="MS:1000523"/><cvParam accession="MS:1000576"/><cvParam accession="MS:1000515"/>'
        "<binary>AAAAAAAAWUAAAAAAAEBfQA==</binary></binaryDataArray></binaryDataArrayList></spectrum></spectrumList></run></mzML>"
    )
    mzxml = (
        '<?xml version="1.0"?><mzXML><msRun scanCount="1"><scan num="1" msLevel="2" peaksCount="1" polarity="+">'
        '<precursorMz>195.0877</precursorMz><peaks precision="32" byteOrder="network" contentType="m/z-int">'
        "QsgAAELIAAA=</peaks></scan></msRun></mzXML>"
    )
    plain = {
        "a.mgf": mgf, "a.msp": msp, "MSBNK.txt": massbank, "a.json": gnps, "a.mzML": mzml, "a.mzXML": mzxml,
    }  # fmt: skip
    whole = {name: text.encode() for name, text in plain.items()}
    whole |= {"a.parquet": _parquet(), "a.hdf5": _hdf5()}
    packed, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in whole.items():
            archive.writestr(name, data)
    with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
        for name, data in whole.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {
        **whole,
        "a.zip": packed.getvalue(),
        "a.tar.gz": tarred.getvalue(),
        "a.mgf.gz": gzip.compress(whole["a.mgf"]),
        "a.msp.bz2": bz2.compress(whole["a.msp"]),
        "a.mzML.xz": lzma.compress(whole["a.mzML"]),
    }


def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    mz, intensity = [m for m, _ in PEAKS], [i for _, i in PEAKS]
    pq.write_table(pa.table({"mz": [mz] * 3, "intensity": [intensity] * 3, "precursor_mz": [195.0877] * 3}), out)
    return out.getvalue()


def _hdf5() -> bytes:
    import h5py

    with tempfile.NamedTemporaryFile(suffix=".hdf5") as file:
        with h5py.File(file.name, "w") as out:
            out["spectrum"] = np.array([[[m for m, _ in PEAKS], [i for _, i in PEAKS]]] * 3, np.float64)
            out["precursor_mz"] = np.array([195.0877] * 3)
            out["charge"] = np.array([1] * 3)
        return Path(file.name).read_bytes()


def mutated(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Return ``data`` with a few changes of several kinds."""
    for _ in range(int(rng.integers(1, 5))):
        raw = bytearray(data)
        size = max(len(raw), 1)
        start = int(rng.integers(size))
        stop = min(start + int(rng.geometric(0.05)), len(raw))
        kind = int(rng.integers(8))
        if kind == 0:  # other bytes
            raw[start:stop] = rng.bytes(stop - start)
        elif kind == 1:  # single bits
            for place in rng.integers(size, size=int(rng.integers(1, 9))).tolist():
                if place < len(raw):
                    raw[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del raw[start:stop]
        elif kind == 3:  # cut short
            del raw[start:]
        elif kind == 4:  # doubled
            raw[start:start] = raw[start:stop] * int(rng.integers(1, 20))
        elif kind == 5:  # numbers and marks that are at some edge
            edges = (
                b"nan",
                b"-1",
                b"1e999",
                b"9" * 40,
                b"\x00" * 8,
                b"\xff" * 8,
                b"\n\n",
                b",",
                b"0",
                b"=",
                b"<!--",
                b"]]>",
            )
            raw[start:stop] = edges[int(rng.integers(len(edges)))]
        elif kind == 6:  # a part of another file
            other = others[int(rng.integers(len(others)))]
            cut = int(rng.integers(max(len(other), 1)))
            raw[start:start] = other[cut : cut + int(rng.geometric(0.01))]
        else:  # parts of it exchanged
            raw = raw[start:] + raw[:start]
        data = bytes(raw)
    return data


def files(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents."""
    rng = np.random.default_rng(seed)
    whole = seeds()
    names, contents = list(whole), list(whole.values())
    for _ in range(number):
        name = names[int(rng.integers(len(names)))]
        yield name, mutated(whole[name], contents, rng)


async def send(url: str, number: int, seed: int, seconds: float) -> tuple[Counter[int], list[str]]:
    """Send the files, a few at a time; return how often each status came, and what was wrong."""
    import httpx

    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    waiting = files(number, seed)
    ends = time.monotonic() + seconds

    async def client(connection: httpx.AsyncClient) -> None:
        for name, data in waiting:
            if time.monotonic() > ends:
                return
            form = {"mode": "open", "k": "2"}
            for attempt in range(50):
                answer = await connection.post(f"{url}/api/search", files={"file": (name, data)}, data=form)
                if answer.status_code not in (429, 503):
                    break
                await asyncio.sleep(0.05 * (attempt + 1))
            statuses[answer.status_code] += 1
            is_told = answer.status_code == 200 or list(answer.json()) == ["error"]
            if not (200 <= answer.status_code < 500 or answer.status_code == 503) or not is_told:
                wrong.append(f"{name} ({len(data)} bytes): {answer.status_code} {answer.text[:200]}")
                kept = Path(tempfile.gettempdir()) / f"service-fuzz-{seed}-{len(wrong)}-{name}"
                kept.write_bytes(data)

    async with httpx.AsyncClient(timeout=120) as connection:
        await asyncio.gather(*(client(connection) for _ in range(CLIENTS)))
    return statuses, wrong


def main() -> int:
    """Run it; 1 where an answer was wrong."""
    from service_load import made_up_index, running

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300.0)
    words = parser.parse_args()
    with running(made_up_index(200)) as served:
        started = time.monotonic()
        statuses, wrong = asyncio.run(send(served.url, words.files, words.seed, words.seconds))
        seconds = time.monotonic() - started
    told = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
    print(f"{statuses.total():,} files (seed {words.seed}) in {seconds:.0f} s: {told}; wrong: {len(wrong)}")
    print("\n".join(wrong[:20]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
