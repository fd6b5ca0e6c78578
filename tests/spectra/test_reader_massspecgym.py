"""MassSpecGym tables: columns by name, rows that are broken, and the folds of the benchmark."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ionbed
from ionbed.errors import InputError
from ionbed.spectra.readers import blocks, read_records
from ionbed.spectra.readers.massspecgym import MASSSPECGYM, read_folds

from .mutation import mutate

COLUMNS = (
    "identifier", "mzs", "intensities", "smiles", "inchikey", "formula", "precursor_formula", "parent_mass",
    "precursor_mz", "adduct", "instrument_type", "collision_energy", "fold", "simulation_challenge",
)  # fmt: skip


def row(number=1, **changes):
    return {
        "identifier": f"MassSpecGymID{number:07d}",
        "mzs": f"91.0542,125.0233,{150 + number}.25",
        "intensities": "0.24481,1.0,0.0",
        "smiles": "CC(=O)N[C@@H](CC1=CC=CC=C1)C2=CC(=CC(=O)O2)OC",
        "inchikey": "VFMQMACUYWGDOJ",
        "formula": "C16H17NO4",
        "precursor_formula": "C16H18NO4",
        "parent_mass": "287.115224",
        "precursor_mz": "288.1225",
        "adduct": "[M+H]+",
        "instrument_type": "Orbitrap",
        "collision_energy": "30.0",
        "fold": ("train", "val", "test")[number % 3],
        "simulation_challenge": "True",
    } | changes


def table(rows, columns=COLUMNS):
    lines = ["\t".join(columns), *("\t".join(cells.get(column, "") for column in columns) for cells in rows)]
    return "".join(line + "\n" for line in lines)


def read(tmp_path, text):
    path = tmp_path / "x"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_records(path))


def test_a_row(tmp_path):
    (found,) = read(tmp_path, table([row()]))
    assert (found.native_id, found.position, found.problem, found.repairs) == ("MassSpecGymID0000001", 1, None, ())
    assert found.fields == {
        "smiles": "CC(=O)N[C@@H](CC1=CC=CC=C1)C2=CC(=CC(=O)O2)OC",
        "inchikey": "VFMQMACUYWGDOJ",
        "formula": "C16H17NO4",
        "precursor_mz": "288.1225",
        "adduct": "[M+H]+",
        "instrument_type": "Orbitrap",
        "collision_energy": "30.0 eV",
    }
    assert found.mz.tolist() == [91.0542, 125.0233, 151.25]
    assert found.intensity.tolist() == [0.24481, 1.0, 0.0]


def test_a_spectrum_from_it(tmp_path):
    (tmp_path / "MassSpecGym.tsv").write_text(table([row()]))
    (spectrum,) = ionbed.read(tmp_path / "MassSpecGym.tsv")
    assert (spectrum.adduct, spectrum.charge, spectrum.collision_energy) == ("[M+H]+", 1, 30.0)
    assert spectrum.inchikey == "VFMQMACUYWGDOJ-AWEZNQCLSA-N"  # whole, from the SMILES
    assert spectrum.spectrum_id == "MassSpecGymID0000001"


@pytest.mark.parametrize("value", ["", "nan", "NaN", "None"])
def test_what_is_missing_is_left_out(tmp_path, value):
    (found,) = read(tmp_path, table([row(collision_energy=value, instrument_type=value)]))
    assert "collision_energy" not in found.fields
    assert "instrument_type" not in found.fields


@pytest.mark.parametrize(
    "change",
    {
        "CRLF": lambda text: text.replace("\n", "\r\n"),
        "byte order mark": lambda text: "\ufeff" + text,
        "no last line end": lambda text: text.rstrip("\n"),
        "blank lines": lambda text: "\n" + text.replace("\n", "\n\n \n"),
        "quoted cells": lambda text: "\n".join(
            "\t".join(f'"{cell}"' for cell in line.split("\t")) for line in text.splitlines()
        ),
        "an index": lambda text: "".join(f"{n or ''}\t{line}\n" for n, line in enumerate(text.splitlines())),
        "upper case": lambda text: text.replace("identifier", "Identifier").replace("mzs", "MZS"),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_programs_do_to_a_table(tmp_path, change):
    found = read(tmp_path, change[1](table([row(n) for n in range(1, 6)])))
    assert [(r.native_id, r.position, r.problem, len(r)) for r in found] == [
        (f"MassSpecGymID{n:07d}", n, None, 3) for n in range(1, 6)
    ]
    assert read_folds(tmp_path / "x") == {f"MassSpecGymID{n:07d}": row(n)["fold"] for n in range(1, 6)}


@given(columns=st.permutations([*COLUMNS, "extra", "name"]), dropped=st.sets(st.sampled_from(COLUMNS[3:])))
@settings(max_examples=50, deadline=None)
def test_columns_are_known_by_name(columns, dropped):
    columns = [column for column in columns if column not in dropped]
    data = table([row(n, extra="{", name="x y") for n in range(3)], columns).encode()
    assert MASSSPECGYM.looks_like(data)
    (piece,) = blocks.cut(MASSSPECGYM, "x", iter([data]), lambda: False)
    found = list(blocks.parse_piece(MASSSPECGYM, piece))
    assert [(r.native_id, len(r), r.fields["name"]) for r in found] == [
        (f"MassSpecGymID{n:07d}", 3, "x y") for n in range(3)
    ]
    assert all(("adduct" in r.fields) != ("adduct" in dropped) for r in found)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mzs": "", "intensities": ""}, "no-peaks"),
        ({"mzs": "50.5"}, "bad-peak-line"),
        ({"intensities": ""}, "bad-peak-line"),
        ({"mzs": "50.5,x,60"}, "bad-peak-line"),
        ({"mzs": "50.5,,60"}, "bad-peak-line"),
        ({"mzs": "50_5,1,60"}, "bad-peak-line"),
        ({"smiles": "C\tC"}, "malformed-row"),
        ({"smiles": "C\nC"}, None),
    ],
)
def test_a_broken_row_costs_only_itself(tmp_path, changes, problem):
    found = read(tmp_path, table([row(1), row(2, **changes), row(3)]))
    assert [r.native_id for r in found if r.problem is None] == ["MassSpecGymID0000001", "MassSpecGymID0000003"]
    expected = [problem] if problem else ["malformed-row"] * 2  # a line end within a cell makes two of one
    assert [r.problem for r in found if r.problem] == expected


@pytest.mark.parametrize("mzs", ["[91.0542, 125.0233, 150.25]", '"91.0542,125.0233,150.25"'])
def test_lists_in_brackets_or_quotes(tmp_path, mzs):
    (found,) = read(tmp_path, table([row(mzs=mzs)]))
    assert found.mz.tolist() == [91.0542, 125.0233, 150.25]


def test_a_peak_that_is_not_finite_costs_only_itself(tmp_path):
    (found,) = read(tmp_path, table([row(mzs="91.5,nan,150.25")]))
    assert (found.problem, found.repairs, len(found)) == (None, ("bad-peak",), 3)


def test_a_cut_file_says_so(tmp_path):
    text = table([row(1), row(2)])
    found = read(tmp_path, text[:-40])
    assert [(r.native_id, r.problem) for r in found] == [("MassSpecGymID0000001", None), ("", "truncated")]
    packed = gzip.compress(
        table([row(n, smiles=np.random.default_rng(n).bytes(60).hex()) for n in range(300)]).encode()
    )
    found = read(tmp_path, packed[: len(packed) // 2])
    assert 80 < len(found) < 220
    assert [r.problem for r in found] == [None] * (len(found) - 1) + ["truncated"]


@pytest.mark.parametrize(
    "text",
    [
        "smiles\tinchikey\tformula\nCC\tx\tC2H6\n",
        "id\tname\tsmiles\tinchi\n1\tmzs\tCC\tx\n",
        "identifier,mzs,intensities\n",
        "identifier\tsmiles\tfold\n",
        "some words about identifier\tmzs and\tintensities\n",
    ],
)
def test_other_tables_are_not_taken_for_it(tmp_path, text):
    assert not MASSSPECGYM.looks_like(text.encode())
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(InputError, match="no format that ionbed reads"):
        read_records(tmp_path / "x.tsv")


@given(block_bytes=st.integers(1, 2000), chunk_bytes=st.integers(1, 2000))
@settings(deadline=None)
def test_blocks_of_any_size_give_the_same_records(block_bytes, chunk_bytes):
    data = table([row(n) for n in range(8)]).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        chunks = (data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes))
        pieces = list(blocks.cut(MASSSPECGYM, "x", chunks, lambda: False))
    found = [r for piece in pieces for r in blocks.parse_piece(MASSSPECGYM, piece)]
    assert [(r.native_id, r.position, r.problem) for r in found] == [
        (f"MassSpecGymID{n:07d}", n + 1, None) for n in range(8)
    ]


def test_ten_thousand_mutated_rows_cost_no_good_one():
    num_files, per_file = 50, 400
    num_mutated = misses = 0
    columns = "\t".join(COLUMNS).encode() + b"\n"
    for seed in range(num_files):
        rng = np.random.default_rng(seed)
        lines, good = [], {}
        for number in range(per_file):
            peaks = np.round(rng.random((2, int(rng.integers(1, 5)))) * 900 + 1, 3).tolist()
            cells = row(number, mzs=",".join(map(str, peaks[0])), intensities=",".join(map(str, peaks[1])))
            line = "\t".join(cells.values()).encode()
            if number % 2:
                line = mutate(line, rng)
                num_mutated += 1
            else:
                good[cells["identifier"]] = peaks
            lines.append(line)
        data = columns + b"\n".join(lines) + b"\n"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "BLOCK_BYTES", int(rng.integers(300, 60_000)))
            pieces = list(blocks.cut(MASSSPECGYM, "x", iter([data[:20_000], data[20_000:]]), lambda: False))
        found = [r for piece in pieces for r in blocks.parse_piece(MASSSPECGYM, piece)]
        assert [r.position for r in found] == list(range(1, len(found) + 1))
        whole = {}
        for r in found:
            if r.problem is None:
                whole.setdefault(r.native_id, []).append([r.mz.tolist(), r.intensity.tolist()])
        assert all(peaks in whole.get(name, []) for name, peaks in good.items()), f"seed {seed}"
        misses += abs(len(found) - per_file)
    assert num_mutated == 10_000
    assert misses < 0.2 * num_mutated  # the mutator breaks and doubles lines


def test_folds(tmp_path):
    rows = [row(1), row(2), row(3), row(2, fold="other"), row(4, fold=""), row(5, identifier="")]
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress((table(rows) + "a broken row\n").encode()))
    assert read_folds(tmp_path / "x.tsv.gz") == {
        "MassSpecGymID0000001": "val",
        "MassSpecGymID0000002": "test",
        "MassSpecGymID0000003": "train",
    }


def test_folds_of_a_file_that_has_none_are_told(tmp_path):
    (tmp_path / "x.tsv").write_text(table([row()], COLUMNS[:-2]))
    (tmp_path / "x.mgf").write_text("BEGIN IONS\nPEPMASS=1\n50 1\nEND IONS\n")
    for name in ("x.tsv", "x.mgf"):
        with pytest.raises(InputError, match="no MassSpecGym table with a column 'fold'") as caught:
            read_folds(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_folds(tmp_path / "missing.tsv")
