"""Files, folders and archives: format by content, blocks at record borders, and what a user is told."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ionbed
from ionbed.errors import InputError
from ionbed.spectra.readers import Block, blocks, parse_block, read_blocks, read_records, sniffing, unpacking

MGF = "BEGIN IONS\nTITLE={0}\nPEPMASS=200.1\nCHARGE=1+\n50.5 10\n60.25 20.5\nEND IONS\n\n"
MSP = "Name: {0}\nPrecursorMZ: 200.1\nNum Peaks: 2\n50.5 10\n60.25 20.5\n\n"
MASSBANK = (
    "ACCESSION: {0}\nCH$NAME: x\nMS$FOCUSED_ION: PRECURSOR_M/Z 200.1\nPK$NUM_PEAK: 2\nPK$PEAK: m/z int. rel.int.\n"
    "  50.5 10 5\n  60.25 20.5 9\n//\n"
)
MZXML = '<mzXML><msRun><scan num="{0}" msLevel="1"><peaks></peaks></scan></msRun></mzXML>'


def several(template, count):
    return "".join(template.format(f"r{n}") for n in range(count)).encode()


def ids(path):
    return [record.native_id for record in read_records(path)]


@pytest.mark.parametrize("template", [MGF, MSP, MASSBANK])
@pytest.mark.parametrize("name", ["spectra", "spectra.dat", "wrong.mzML"])
def test_content_tells_the_format_whatever_the_name(tmp_path, template, name):
    (tmp_path / name).write_bytes(several(template, 3))
    records = list(read_records(tmp_path / name))
    assert [(r.position, len(r), r.source_file) for r in records] == [(n, 2, name) for n in (1, 2, 3)]


def members():
    return {
        "set/a.txt": several(MASSBANK, 1),
        "set/b.txt": several(MASSBANK, 2),
        "set/c.mgf.gz": gzip.compress(several(MGF, 2)),
        "set/d.msp": several(MSP, 1),
        "set/e.mzXML": MZXML.format(5).encode(),
        "set/f.txt": b"no record at all",
        "set/readme.md": b"# about",
    }


EXPECTED = [
    ("set/a.txt", 1, None), ("set/b.txt", 1, None), ("set/b.txt", 2, None), ("set/c.mgf.gz", 1, None),
    ("set/c.mgf.gz", 2, None), ("set/d.msp", 1, None), ("set/e.mzXML", 1, None), ("set/f.txt", 1, "unknown-format"),
]  # fmt: skip


def tar_bytes(contents, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def found(path):
    return [(r.source_file, r.position, r.problem) for r in read_records(path)]


def test_a_folder(tmp_path, caplog):
    for name, data in {**members(), "set/.hidden.mgf": several(MGF, 1)}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert found(tmp_path / "set") == EXPECTED
    assert "left out 1 file that is no spectrum (set/readme.md)" in caplog.text


@pytest.mark.parametrize(
    ("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("no-extension", "w:gz")]
)
def test_a_tar_archive(tmp_path, name, mode):
    (tmp_path / name).write_bytes(tar_bytes(members(), mode))
    assert found(tmp_path / name) == [(f"{name}!{member}", n, problem) for member, n, problem in EXPECTED]


def test_a_zip_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members().items():
            archive.writestr(name, data)
    assert found(tmp_path / "x.zip") == [(f"x.zip!{member}", n, problem) for member, n, problem in EXPECTED]


def test_a_damaged_member_of_a_zip_archive_costs_only_itself(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:  # stored, so that the byte is found
        for name in ("a", "b", "c"):
            archive.writestr(f"{name}.txt", MASSBANK.format(f"record-{name}"))
    data = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(data.replace(b"ACCESSION: record-b", b"ACCESSION: record-B", 1))
    records = list(read_records(tmp_path / "x.zip"))
    assert [r.source_file for r in records if not r.problem] == ["x.zip!a.txt", "x.zip!c.txt"]
    assert [(r.source_file, r.problem) for r in records if r.problem] == [("x.zip!b.txt", "truncated")]


def test_a_cut_tar_archive_gives_what_is_whole_and_says_so(tmp_path):
    contents = {f"{n}.txt": MASSBANK.format(f"r{n}").encode() + np.random.default_rng(n).bytes(2000) for n in range(50)}
    packed = tar_bytes(contents, "w:gz")
    path = tmp_path / "x.tar.gz"
    path.write_bytes(packed[: len(packed) // 2])
    records = list(read_records(path))
    whole = [r.native_id for r in records if not r.problem]
    assert 20 <= len(whole) <= 25
    assert whole == [f"r{n}" for n in range(len(whole))]
    assert records[-1].problem == "truncated"


@pytest.mark.parametrize("template", [MGF, MSP, MASSBANK])
def test_a_cut_gzip_file_gives_what_is_whole_and_says_so(tmp_path, template):
    text = "".join(template.format(np.random.default_rng(n).bytes(50).hex()) for n in range(200)).encode()
    packed = gzip.compress(text)
    (tmp_path / "x.gz").write_bytes(packed[: len(packed) // 2])
    records = list(read_records(tmp_path / "x.gz"))
    assert 50 < len(records) < 150
    assert [r.problem for r in records[:-1]] == [None] * (len(records) - 1)
    assert records[-1].problem == "truncated"


def test_a_stream_damaged_between_two_records_says_so(tmp_path):
    (tmp_path / "x.mgf.gz").write_bytes(gzip.compress(several(MGF, 3)) + gzip.compress(several(MGF, 3))[:12])
    records = list(read_records(tmp_path / "x.mgf.gz"))
    assert [(r.position, r.problem) for r in records] == [(1, None), (2, None), (3, None), (4, "truncated")]


def test_a_stream_cut_within_the_last_number_does_not_give_that_number(tmp_path):
    stream = zlib.compressobj(wbits=31)
    text = several(MSP, 2).rstrip().removesuffix(b"0.5")  # '20.5' became '2'
    (tmp_path / "x.msp.gz").write_bytes(stream.compress(text) + stream.flush(zlib.Z_SYNC_FLUSH))
    assert [(len(r), r.problem) for r in read_records(tmp_path / "x.msp.gz")] == [(2, None), (0, "truncated")]


@pytest.mark.parametrize("template", [MGF, MSP, MASSBANK])
@given(
    block_bytes=st.integers(1, 400), chunk_bytes=st.integers(1, 300), ending=st.sampled_from([b"\n", b"\r\n", b"\r"])
)
def test_blocks_of_any_size_give_the_same_records(tmp_path_factory, template, block_bytes, chunk_bytes, ending):
    path = tmp_path_factory.mktemp("blocks") / "x"
    path.write_bytes(several(template, 7).replace(b"\n", ending))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        patch.setattr(sniffing, "_CHUNK_BYTES", chunk_bytes)
        patch.setattr(unpacking, "HEAD_BYTES", 200)
        records = list(read_records(path))
    assert [(r.position, len(r), r.problem, r.repairs) for r in records] == [(n, 2, None, ()) for n in range(1, 8)]


def test_small_files_share_a_block_and_a_block_pickles(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(tar_bytes({f"{n}.txt": several(MASSBANK, 1) for n in range(30)}, "w:gz"))
    (block,) = read_blocks(tmp_path / "x.tar.gz")
    assert isinstance(block, Block)
    assert (block.format, len(block.pieces)) == ("MassBank", 30)
    again = parse_block(pickle.loads(pickle.dumps(block)))
    assert [r.source_file for r in again] == [r.source_file for r in parse_block(block)]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("missing.mgf", None, "no such file"),
        ("empty.mgf", b"", "is empty"),
        ("table.csv", b"mz,intensity\n1,2\n", "of no format that ionbed reads"),
        ("molecules.smi", b"CCO ethanol\n", "holds molecules, and spectra are needed"),
        ("wrong.mgf", b"hello", "of no format that ionbed reads"),
        ("empty.gz", gzip.compress(b"", mtime=0), "of no format that ionbed reads"),
        ("cut.gz", gzip.compress(b"x" * 1000, mtime=0)[:5], "of no format that ionbed reads"),
        ("broken.zip", b"PK\x03\x04 and no more", "damaged zip"),
        ("none.tar", tar_bytes({"a.md": b"x", "b.txt": b"y"}), "holds 2 files, none of a known format"),
    ],
)
def test_what_cannot_be_read_is_told_at_the_call_in_one_line(tmp_path, name, data, words):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    for call in (read_records, read_blocks, ionbed.read):
        with pytest.raises(InputError, match=words) as caught:
            call(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="holds no files"):
        read_records(tmp_path)


def test_the_report_counts_each_repair_of_a_record_once(tmp_path):
    """The reader mends the peaks of three records, harmonisation the precursor of two of them and of a fourth."""
    texts = [MGF.format(f"r{n}") for n in range(5)]
    for n in (0, 1, 2):
        texts[n] = texts[n].replace("50.5", "50,5")
    for n in (0, 1, 3):
        texts[n] = texts[n].replace("PEPMASS=200.1", "PEPMASS=200,1")
    (tmp_path / "x.mgf").write_text("".join(texts))
    reader = ionbed.read(tmp_path / "x.mgf")
    assert len(list(reader)) == 5
    assert reader.report.repaired == {"decimal-comma": 4}


def test_the_reader_is_lazy_can_be_repeated_and_its_report_adds_up(tmp_path):
    text = several(MGF, 3) + MGF.replace("60.25", "x").encode() + MGF.replace("CHARGE", "MSLEVEL=1\nCHARGE").encode()
    (tmp_path / "x.mgf").write_bytes(text + MGF.format("comma").replace("50.5", "50,5").encode())
    reader = ionbed.read(tmp_path / "x.mgf")
    for _ in range(2):
        spectra = list(reader)
        assert [s.spectrum_id for s in spectra] == ["r0", "r1", "r2", "comma"]
        assert (reader.report.read, reader.report.kept) == (6, 4)
        assert reader.report.dropped == {"bad-peak-line": 1, "ms-level": 1}
        assert reader.report.repaired == {"decimal-comma": 1}
    assert str(reader.report) == (
        "6 read, 4 kept, 1 dropped (bad-peak-line), 1 dropped (ms-level), 1 repaired (decimal-comma)"
    )


@pytest.mark.parametrize("template", [MGF, MSP, MASSBANK])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@given(chunk_bytes=st.integers(1, 300))
def test_text_in_utf_16_is_read(tmp_path_factory, template, encoding, chunk_bytes):
    path = tmp_path_factory.mktemp("wide") / "x"
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    path.write_bytes(
        (mark + several(template, 3).decode().replace("r1", "µ€😀")).replace("\n", "\r\n").encode(encoding)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sniffing, "_CHUNK_BYTES", chunk_bytes)
        records = list(read_records(path))
    assert [(r.native_id or r.fields["name"], len(r), r.repairs) for r in records] == [
        ("r0", 2, ()), ("µ€😀", 2, ()), ("r2", 2, ()),
    ]  # fmt: skip


def test_xml_in_utf_16_is_read_whatever_encoding_it_declares(tmp_path):
    text = '<?xml version="1.0" encoding="UTF-16"?>\n' + MZXML.format(5)
    (tmp_path / "x.mzXML").write_bytes(text.encode("utf-16"))
    assert [(r.fields["ms_level"], r.problem) for r in read_records(tmp_path / "x.mzXML")] == [("1", None)]


def zstandard(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files(tmp_path, suffix):
    compress = COMPRESS[suffix]
    (tmp_path / f"a.mgf.{suffix}").write_bytes(compress(several(MGF, 2)) + compress(MGF.format("r2").encode()))
    assert ids(tmp_path / f"a.mgf.{suffix}") == ["r0", "r1", "r2"]
    (tmp_path / "b").write_bytes(compress(gzip.compress(several(MGF, 2))))
    assert ids(tmp_path / "b") == ["r0", "r1"]
    (tmp_path / f"c.tar.{suffix}").write_bytes(compress(tar_bytes(members())))
    assert found(tmp_path / f"c.tar.{suffix}") == [(f"c.tar.{suffix}!{member}", n, p) for member, n, p in EXPECTED]
    (tmp_path / "d.zip").write_bytes(compress(zip_bytes(members())))  # a zip archive that has to be unpacked first
    assert found(tmp_path / "d.zip") == [(f"d.zip!{member}", n, problem) for member, n, problem in EXPECTED]
    (tmp_path / "none.mgf").write_bytes(compress(b""))
    with pytest.raises(InputError, match="of no format"):
        read_records(tmp_path / "none.mgf")


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_cut_compressed_file_gives_what_is_whole_and_says_so(tmp_path, suffix):
    text = "".join(MGF.format(np.random.default_rng(n).bytes(500).hex()) for n in range(3000)).encode()
    packed = COMPRESS[suffix](text)
    (tmp_path / "x").write_bytes(packed[: int(len(packed) * 0.8)])
    records = list(read_records(tmp_path / "x"))
    assert 500 < len(records) < 2500
    assert [r.problem for r in records] == [None] * (len(records) - 1) + ["truncated"]


def zip_bytes(contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_archives_inside_archives_and_folders_are_read(tmp_path):
    inner = tar_bytes({"c.mgf": several(MGF, 2), "d.txt": several(MASSBANK, 1)}, "w:gz")
    (tmp_path / "a.zip").write_bytes(zip_bytes({"b.tar.gz": inner, "e.msp": several(MSP, 1)}))
    expected = [
        ("a.zip!b.tar.gz!c.mgf", 1, None), ("a.zip!b.tar.gz!c.mgf", 2, None), ("a.zip!b.tar.gz!d.txt", 1, None),
        ("a.zip!e.msp", 1, None),
    ]  # fmt: skip
    assert found(tmp_path / "a.zip") == expected
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes())
    (folder / "z.tar").write_bytes(tar_bytes({"y.zip": zip_bytes({"x.mgf": several(MGF, 1)})}))
    assert found(folder) == [(f"set/{n}", p, q) for n, p, q in expected] + [("set/z.tar!y.zip!x.mgf", 1, None)]


def test_a_damaged_archive_inside_another_costs_only_itself(tmp_path):
    good = zip_bytes({"x.mgf": several(MGF, 1)})
    text = {f"{n}.txt": MASSBANK.format(f"r{n}").encode() + np.random.default_rng(n).bytes(2000) for n in range(9)}
    tar = tar_bytes(text)
    contents = {"a.zip": good, "b.zip": good[:-10], "c.tar": tar[: len(tar) // 2], "d.zip": good}
    (tmp_path / "x.tar").write_bytes(tar_bytes(contents))
    records = found(tmp_path / "x.tar")
    assert [r for r in records if not r[0].startswith("x.tar!c.tar")] == [
        ("x.tar!a.zip!x.mgf", 1, None), ("x.tar!b.zip", 1, "truncated"), ("x.tar!d.zip!x.mgf", 1, None),
    ]  # fmt: skip
    in_c = [r[2] for r in records if r[0].startswith("x.tar!c.tar")]
    assert in_c.count(None) >= 3
    assert in_c[-1] == "truncated"


@pytest.mark.parametrize("damage", ["header", "end"])
def test_a_tar_archive_that_is_damaged_between_members_says_so(tmp_path, damage):
    data = bytearray(tar_bytes({f"{n}.txt": several(MASSBANK, 1) for n in range(4)}))
    if damage == "header":
        data[2 * 1024 + 100 : 2 * 1024 + 160] = b"\xff" * 60  # of the third member: tarfile takes it for the end
    else:
        data = data[: 2 * 1024]
    (tmp_path / "x.tar").write_bytes(data)
    assert [r[2] for r in found(tmp_path / "x.tar")] == [None, None, "truncated"]


def test_an_archive_nested_too_deep_is_not_looked_into(tmp_path):
    data = several(MGF, 1)
    for _ in range(unpacking.MAX_NESTING + 1):
        data = zip_bytes({"a.mgf": several(MGF, 1), "x.zip": data})
    (tmp_path / "x.zip").write_bytes(data)
    records = found(tmp_path / "x.zip")
    assert [problem for _, _, problem in records].count(None) == unpacking.MAX_NESTING
    assert records[-1] == ("x.zip" + "!x.zip" * unpacking.MAX_NESTING, 1, "archive-too-deep")


def test_what_macos_adds_to_archives_is_left_out(tmp_path):
    contents = {"a.mgf": several(MGF, 1), "__MACOSX/._a.mgf": b"\0\5\x16\7", "._b.mgf": b"x"}
    (tmp_path / "x.zip").write_bytes(zip_bytes(contents))
    assert found(tmp_path / "x.zip") == [("x.zip!a.mgf", 1, None)]


def parquet_bytes():
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table({"precursor_mz": [200.1], "mz": [[50.5]], "intensity": [[1.0]]}), sink)
    return sink.getvalue()


def test_rows_that_cannot_be_reached_in_a_packed_file_are_told(tmp_path, caplog):
    (tmp_path / "x.parquet.gz").write_bytes(gzip.compress(parquet_bytes()))
    with pytest.raises(InputError, match=r"x.parquet.gz: is Parquet packed in an archive .*; unpack it"):
        read_records(tmp_path / "x.parquet.gz")
    (tmp_path / "x.zip").write_bytes(zip_bytes({"a.parquet": parquet_bytes(), "b.mgf": several(MGF, 1)}))
    assert found(tmp_path / "x.zip") == [("x.zip!a.parquet", 1, "packed-table"), ("x.zip!b.mgf", 1, None)]
    assert "x.zip!a.parquet: is Parquet packed" in caplog.text


MGF_TEXT = "BEGIN IONS\nTITLE=a\nPEPMASS=200.1\n50.5 10\nEND IONS\n"
MSP_TEXT = "Name: a\nPrecursorMZ: 200.1\nNum Peaks: 1\n50.5 10\n"
PROGRAM = "import sys\n\ndef read(path):\n    with open(path) as stream:\n        return stream.read()\n\n\n"
PROSE = "Spectra\n=======\nA record is written so\nwith its peaks\none in a line\nin the order of m/z\n\n"


@pytest.mark.parametrize("record", [MGF_TEXT, MSP_TEXT], ids=["MGF", "MSP"])
@pytest.mark.parametrize(
    "before",
    [PROGRAM + 'TEXT = """\n', PROSE, "<!DOCTYPE html>\n<html><body><pre>\n", '<?xml version="1.0"?>\n<html><pre>\n'],
    ids=["program", "prose", "web page", "XHTML"],
)
def test_what_quotes_a_record_is_no_library(tmp_path, caplog, before, record):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "other").write_text(before + record)
    with pytest.raises(InputError, match="of no format that ionbed reads"):
        read_records(folder / "other")
    (folder / "library").write_text(record)
    assert len(list(read_records(folder))) == 1
    assert "left out 1 file that is no spectrum (in/other)" in caplog.text


@pytest.mark.parametrize(
    ("before", "record"),
    [
        ("Made by hand\non a Monday\n\n", MGF_TEXT),
        ("# a comment\n" * 9 + "COM=a\n_DISTILLER_RAWFILE[1]={1}D:\\a.raw\nCHARGE=1+\n", MGF_TEXT),
        ("60.5 10\n" * 9 + "END IONS\n", MGF_TEXT),
        ("Made by hand\n\n", MSP_TEXT),
        ("# a comment\n" * 9, MSP_TEXT),
        ("60.5 10\n" * 9 + "\n", MSP_TEXT),
    ],
)
def test_what_may_stand_before_the_first_record(tmp_path, before, record):
    path = tmp_path / "library"
    path.write_text(before + record)
    assert [r.fields.get("precursor_mz") for r in read_records(path)][-1] == "200.1"


def test_the_documentation_names_every_format():
    page = (Path(__file__).parents[2] / "docs" / "prepare.md").read_text(encoding="utf-8")
    formats = page.partition("\n## Formats\n")[2].partition("\n## ")[0]
    rows = {word.strip() for line in formats.splitlines() if line[:1] == "|" for word in line.split("|")[1].split(",")}
    assert rows - {"format", "---"} == set(sniffing.FORMATS)
    assert ionbed.read.__doc__ is not None
    assert all(name in " ".join(ionbed.read.__doc__.split()) for name in sniffing.FORMATS)


@pytest.mark.parametrize(
    ("first", "second"),
    [(MGF_TEXT, MSP_TEXT), (4 * (MSP_TEXT + "\n"), MGF_TEXT), (MGF_TEXT, "\0" * 99 + "\n" + MGF_TEXT)],
)
def test_what_follows_in_another_format_costs_no_record_before_it(tmp_path, first, second):
    path = tmp_path / "library"
    path.write_text(first + "\n" + second)
    records = list(read_records(path))
    assert len(records) > max(first.count("Num Peaks"), 1)  # what follows is counted
    whole = records[0]
    assert (whole.problem, whole.fields["precursor_mz"], whole.mz.tolist()) == (None, "200.1", [50.5])
