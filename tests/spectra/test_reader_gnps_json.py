"""GNPS json: its fields and peaks, and the borders of records in JSON that may be broken anywhere."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ionbed
from ionbed.errors import InputError
from ionbed.spectra.readers import blocks, read_records
from ionbed.spectra.readers.gnps_json import GNPS_JSON

from .mutation import mutate_json

# Braces, brackets, quotes and what looks like the opening of a record, all within strings.
TRICKY = 'N-{[3-(a}]b "q" \\ {"spectrum_id": x}, {"k": [ ü'


def record(number=0, **changes):
    peaks = [[100.5 + number, 20.0], [50.25, 10.5], [75.0, 0.0]]
    fields = {
        "spectrum_id": f"CCMSLIB{number:011d}",
        "source_file": "a.mzXML",
        "ms_level": "2",
        "library_membership": "GNPS-LIBRARY",
        "peaks_json": json.dumps(peaks, separators=(",", ":")),
        "Compound_Name": "Fuberidazole",
        "Ion_Source": "LC-ESI",
        "Instrument": "qTof",
        "PI": "Dorrestein",
        "Adduct": "M+H",
        "Precursor_MZ": "185.07",
        "Charge": "0",
        "CAS_Number": "N/A",
        "Smiles": "c1ccc2[nH]c(nc2c1)-c1ccco1",
        "INCHI": "N/A",
        "INCHI_AUX": "N/A",
        "Ion_Mode": "Positive",
        "InChIKey_smiles": "UYJUZNLFJAWNEZ-UHFFFAOYSA-N",
        "annotation_history": [{"Compound_Name": "wrong", "Smiles": "C"}, {"Compound_Name": TRICKY}],
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def read(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return list(read_records(path))


def one(tmp_path, **changes):
    (found,) = read(tmp_path, [record(**changes)])
    return found


def test_a_library_record(tmp_path):
    found = one(tmp_path)
    assert (found.native_id, found.position, found.problem, found.repairs) == ("CCMSLIB00000000000", 1, None, ())
    assert found.fields == {
        "ms_level": "2",
        "name": "Fuberidazole",
        "instrument": "qTof",
        "laboratory": "Dorrestein",
        "adduct": "M+H",
        "precursor_mz": "185.07",
        "smiles": "c1ccc2[nH]c(nc2c1)-c1ccco1",
        "inchikey": "UYJUZNLFJAWNEZ-UHFFFAOYSA-N",
        "polarity": "Positive",
    }
    assert found.mz.tolist() == [100.5, 50.25, 75.0]  # as written: not sorted, zeros kept
    assert found.intensity.tolist() == [20.0, 10.5, 0.0]


def test_a_spectrum_from_it(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([record()]))
    (spectrum,) = ionbed.read(tmp_path / "x.json")
    assert (spectrum.adduct, spectrum.charge, spectrum.polarity, spectrum.license) == ("[M+H]+", 1, 1, None)
    assert spectrum.formula == "C11H8N2O"
    assert spectrum.mz.tolist() == [50.25, 100.5]


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"Charge": "1"}, "charge", "1"),
        ({"Charge": 0}, "charge", None),
        ({"Charge": -1}, "charge", "-1"),
        ({"Ion_Mode": "positive-QE"}, "polarity", "positive"),
        ({"Ion_Mode": "Negative"}, "polarity", "Negative"),
        ({"Ion_Mode": "N/A"}, "polarity", None),
        ({"ms_level": "MS2"}, "ms_level", "2"),
        ({"ms_level": 2}, "ms_level", "2"),
        ({"INCHI_AUX": "AAAAAAAAAAAAAA-BBBBBBBBBB-N"}, "inchikey", "AAAAAAAAAAAAAA-BBBBBBBBBB-N"),
        ({"INCHI_AUX": "1/N:2,3"}, "inchikey", "UYJUZNLFJAWNEZ-UHFFFAOYSA-N"),
        ({"Precursor_MZ": 185.0709}, "precursor_mz", "185.0709"),
        ({"Precursor_MZ": None}, "precursor_mz", None),
        ({"Precursor_MZ": float("nan")}, "precursor_mz", None),
        ({"Precursor_MZ": [1]}, "precursor_mz", None),
        ({"collision_energy": 35}, "collision_energy", "35"),
        ({"Compound_Name": "Kaempferol - 40.0 eV"}, "collision_energy", "40.0 eV"),
        ({"Compound_Name": "Kaempferol - 40.0 eV"}, "name", "Kaempferol"),
        ({"Compound_Name": "Kaempferol - 40.0 eV", "collision_energy": "20"}, "collision_energy", "20"),
        ({"Compound_Name": "Kaempferol-40.0 eV"}, "collision_energy", None),
        ({"Compound_Name": "NCGC1_C15H20 CollisionEnergy:102040"}, "collision_energy", "10,20,40 (stepped)"),
        ({"Compound_Name": "NCGC1_C15H20 CollisionEnergy:102040"}, "name", "NCGC1_C15H20"),
        ({"Compound_Name": "x CollisionEnergy:402010"}, "collision_energy", None),  # no ascending steps
        ({"Compound_Name": "x CollisionEnergy:2040"}, "collision_energy", None),  # 20 and 40, or 2040?
        ({"Instrument": "in-silico"}, "predicted", "true"),
        ({"library_membership": "IN_SILICO-LIPIDS"}, "predicted", "true"),
        ({"library_membership": "SILICA"}, "predicted", None),
        ({"predicted": True}, "predicted", "true"),
        ({"license": "CC0"}, "license", "CC0"),
    ],
)
def test_fields(tmp_path, changes, field, expected):
    assert one(tmp_path, **changes).fields.get(field) == expected


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ([[50, 1], [60.5, 2]], ([50.0, 60.5], [1.0, 2.0])),
        ([[50, 1, "annotation"], [60.5, 2, None]], ([50.0, 60.5], [1.0, 2.0])),
        ([["50.5", "1"]], ([50.5], [1.0])),
        ("[[50,1],[60.5,2e1]]", ([50.0, 60.5], [1.0, 20.0])),
        (" [ [50 , 1.0],\n[60.5, 2] ] ", ([50.0, 60.5], [1.0, 2.0])),
        ("[[50,1,3],[60.5,2,3]]", ([50.0, 60.5], [1.0, 2.0])),
        ("[(50, 1), (60.5, 2)]", ([50.0, 60.5], [1.0, 2.0])),
    ],
)
def test_peaks_are_a_list_or_the_text_of_one(tmp_path, peaks, expected):
    found = one(tmp_path, peaks_json=peaks)
    assert (found.problem, found.mz.tolist(), found.intensity.tolist()) == (None, *expected)


@pytest.mark.parametrize("peaks", [[[50, 1], [60, float("nan")], [None, 2]], "[[50,1],[60,NaN],[null,2]]"])
def test_nan_and_null_are_nan_and_cost_only_their_peak(tmp_path, peaks):
    found = one(tmp_path, peaks_json=peaks)
    assert (found.problem, found.repairs) == (None, ("bad-peak",))
    assert np.array_equal(found.mz, [50, 60, np.nan], equal_nan=True)
    assert np.array_equal(found.intensity, [1, np.nan, 2], equal_nan=True)
    (spectrum,) = ionbed.read(tmp_path / "x")
    assert spectrum.mz.tolist() == [50.0]


@pytest.mark.parametrize(
    ("peaks", "problem"),
    [
        ([], "no-peaks"),
        ("[]", "no-peaks"),
        ("", "no-peaks"),
        (None, "no-peaks"),
        ([50, 1], "bad-peak-line"),
        ([[50], [60]], "bad-peak-line"),
        ("[[50,1],[60]]", "bad-peak-line"),
        ("[[50,1],[60,2,3],[4]]", "bad-peak-line"),
        ("[50]", "bad-peak-line"),
        ("[[50,1],[6 0,2]]", "bad-peak-line"),
        ("[[50,1_0]]", "bad-peak-line"),
        ("[[50,1", "bad-peak-line"),
        ("50:1", "bad-peak-line"),
        ({"mz": 1}, "bad-peak-line"),
        ([[50, "x"]], "bad-peak-line"),
        ([[50, 10**400]], "bad-peak-line"),
    ],
)
def test_unusable_peaks_cost_only_their_record(tmp_path, peaks, problem):
    found = read(tmp_path, [record(0), record(1) | {"peaks_json": peaks}, record(2)])
    assert [(r.position, r.problem, len(r)) for r in found] == [(1, None, 3), (2, problem, 0), (3, None, 3)]


def test_peaks_of_other_levels_are_not_read(tmp_path):
    found = one(tmp_path, ms_level="1", peaks_json="broken")
    assert (found.problem, len(found)) == (None, 0)


def several(count, **changes):
    return [record(number, **changes) for number in range(count)]


LAYOUTS = {
    "one line": lambda records: json.dumps(records),
    "no blanks": lambda records: json.dumps(records, separators=(",", ":")),
    "pretty": lambda records: json.dumps(records, indent=4),
    "pretty, CRLF": lambda records: json.dumps(records, indent=4).replace("\n", "\r\n"),
    "byte order mark": lambda records: "\ufeff" + json.dumps(records),
    "a line each": lambda records: "".join(json.dumps(r) + "\n" for r in records),
    "a line each, no last line end": lambda records: "\n".join(json.dumps(r) for r in records),
    "a line each, in an array": lambda records: "[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n",
    "unescaped": lambda records: json.dumps(records, ensure_ascii=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_layouts(tmp_path, layout, count):
    records = several(count)
    found = read(tmp_path, LAYOUTS[layout](records).encode())
    assert [(r.native_id, r.position, r.problem, r.repairs) for r in found] == [
        (r["spectrum_id"], n, None, ()) for n, r in enumerate(records, 1)
    ]
    assert found[-1].mz.tolist() == [99.5 + count, 50.25, 75.0]


def test_gzipped(tmp_path):
    found = read(tmp_path, gzip.compress(json.dumps(several(3)).encode()))
    assert [r.problem for r in found] == [None] * 3


BROKEN = {
    "lost opening quote": (b'"Adduct"', b'Adduct"'),
    "lost closing quote": (b'"Adduct"', b'"Adduct'),
    "lost quote of the last value": (b'\\u00fc"', b"\\u00fc"),
    "lost opening brace": (b'{"spectrum_id"', b'"spectrum_id"'),
    "lost closing brace": (b"}]}", b"}]"),
    "lost brace within": (b'[{"Compound_Name"', b'["Compound_Name"'),
    "lost opening bracket": (b'[{"Compound_Name"', b'{"Compound_Name"'),
    "lost closing bracket": (b"}]}", b"}}"),
    "lost brace and bracket": (b"}]}", b""),
    "lost colon": (b'"Adduct":', b'"Adduct"'),
    "lost comma": (b', "Adduct"', b' "Adduct"'),
    "lost backslash": (b'\\"q', b'"q'),
    "trailing comma": (b"}]}", b"}],}"),
    "a word that is no value": (b'"M+H"', b"None"),
    "cut in a string": (b'"M+H"', b'"M'),
}


@pytest.mark.parametrize("layout", ["one line", "pretty", "a line each", "a line each, in an array"])
@pytest.mark.parametrize("damage", BROKEN)
def test_broken_json_costs_only_its_record(tmp_path, layout, damage):
    texts = [json.dumps(r) for r in several(5)]
    before, after = (part.decode() for part in BROKEN[damage])
    assert before in texts[2]
    texts[2] = texts[2].replace(before, after, 1)
    if layout == "pretty":  # as near as the broken text allows
        texts = [text.replace(", ", ",\n        ") for text in texts]
    brackets = ("", "") if layout == "a line each" else ("[\n", "\n]\n")
    between = "\n" if layout == "a line each" else ", " if layout == "one line" else ",\n"
    found = read(tmp_path, (brackets[0] + between.join(texts) + brackets[1]).encode())
    good = [record(n)["spectrum_id"] for n in (0, 1, 3, 4)]
    assert [r.native_id for r in found if r.problem is None] == good
    assert [(r.position, r.problem) for r in found if r.problem] == [(3, "malformed-json")]


def test_a_stray_brace_ends_the_record_early_and_touches_no_other(tmp_path):
    """Nothing tells what follows it from a record that has lost its beginning; what stands before it is good JSON."""
    texts = [json.dumps(r) for r in several(3)]
    texts[1] = texts[1].replace('"M+H"', '"M+H"}')
    found = read(tmp_path, f"[{', '.join(texts)}]".encode())
    assert [(r.native_id[-1:], r.problem) for r in found] == [
        ("0", None), ("1", None), ("", "malformed-json"), ("2", None)
    ]  # fmt: skip


def test_bytes_that_are_not_utf_8_are_mended(tmp_path):
    texts = [json.dumps(r).encode() for r in several(3)]
    texts[1] = texts[1].replace(b"Fuberidazole", b"F\xfcberidazol")
    found = read(tmp_path, b"[" + b",".join(texts) + b"]")
    assert [(r.problem, r.repairs) for r in found] == [(None, ()), (None, ("not-utf-8",)), (None, ())]
    assert found[1].fields["name"] == "Füberidazol"


def test_line_ends_and_nan_within_a_record_do_no_harm(tmp_path):
    text = json.dumps(several(2)).replace("Fuberidazole", "Fuberi\ndazole").replace('"185.07"', "NaN")
    found = read(tmp_path, text.encode())
    assert [(r.problem, r.fields["name"], r.fields.get("precursor_mz")) for r in found] == [
        (None, "Fuberi\ndazole", None)
    ] * 2


def test_stray_commas_and_joined_arrays(tmp_path):
    texts = [json.dumps(r) for r in several(4)]
    found = read(tmp_path, f"[{texts[0]},,{texts[1]},]\n[{texts[2]}]{texts[3]}".encode())
    assert [r.problem for r in found[:4]] == [None] * 4
    assert [r.problem for r in found[4:]] == ["truncated"]  # it begins as an array and does not end as one


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_cut_anywhere_gives_what_is_whole_and_says_so(tmp_path, layout):
    data = LAYOUTS[layout](several(4)).encode()
    whole = [(r.native_id, r.mz.tolist()) for r in read(tmp_path, data)]
    is_array = data.lstrip("\ufeff".encode()).startswith(b"[")
    for stop in range(data.index(b"CCMSLIB00000000001"), len(data.rstrip()), 23):
        found = read(tmp_path, data[:stop])
        good = [(r.native_id, r.mz.tolist()) for r in found if r.problem is None]
        assert good == whole[: len(good)]
        assert len(good) >= data[:stop].count(b'"annotation_history"') - 1
        problems = [r.problem for r in found[len(good) :]]
        if problems == ["malformed-json"]:  # what is left happens to end as a file does
            assert data[:stop].rstrip().endswith(b"]" if is_array else (b"}", b"]"))
        else:
            assert problems == ["truncated"] or (not is_array and problems == [])


def test_a_cut_gzip_file_says_so(tmp_path):
    rng = np.random.default_rng(0)
    records = several(300)
    for entry in records:
        entry["task"] = rng.bytes(40).hex()
    packed = gzip.compress(json.dumps(records).encode())
    found = read(tmp_path, packed[: len(packed) // 2])
    assert 80 < len(found) < 220
    assert [r.problem for r in found[:-1]] == [None] * (len(found) - 1)
    assert found[-1].problem == "truncated"


_TEXTS = st.text(alphabet='{}[]",:\\ \nab', max_size=12)
_VALUES = st.recursive(
    _TEXTS | st.none() | st.floats(allow_nan=True) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS | st.just("id"), inner, max_size=3),
    max_leaves=8,
)


@given(
    records=st.lists(
        st.dictionaries(_TEXTS | st.sampled_from(["id", "x"]), _VALUES, max_size=4), min_size=1, max_size=6
    ),
    place=st.integers(0, 3),
    indent=st.sampled_from([None, 0, 2]),
    as_lines=st.booleans(),
    block_bytes=st.integers(1, 300),
    chunk_bytes=st.integers(1, 300),
)
@settings(max_examples=200, deadline=None)
def test_valid_json_is_cut_as_a_parser_would_cut_it(records, place, indent, as_lines, block_bytes, chunk_bytes):
    """Whatever the strings hold, whatever is nested, with whichever key a record begins."""
    entries = []
    for number, extra in enumerate(records):
        items = [item for item in extra.items() if item[0] != "peaks_json"]
        items.insert(min(place, len(items)), ("peaks_json", [[50.0 + number, 1.0]]))
        entries.append(dict(items))
    if as_lines:
        data = "\n".join(json.dumps(entry) for entry in entries).encode()
    else:
        data = json.dumps(entries, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        chunks = (data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes))
        pieces = list(blocks.cut(GNPS_JSON, "x", chunks, lambda: False))
    found = [r for piece in pieces for r in blocks.parse_piece(GNPS_JSON, piece, ms_levels=range(100))]
    assert [(r.position, r.problem, r.mz.tolist()) for r in found] == [
        (number + 1, None, [50.0 + number]) for number in range(len(entries))
    ]


@pytest.mark.parametrize("layout", ["one line", "pretty", "a line each"])
def test_ten_thousand_mutated_records_cost_no_good_one(layout):
    """Half of the records are mutated; every other is read as it stands, and each of its neighbours once at most."""
    num_files, per_file = 70, 100
    num_mutated, misses = 0, 0
    for seed in range(num_files):
        rng = np.random.default_rng(seed)
        texts, good = [], {}
        for number in range(per_file):
            peaks = np.round(rng.random((int(rng.integers(1, 5)), 2)) * 900 + 1, 3).tolist()
            entry = record(number, Compound_Name=TRICKY, peaks_json=peaks if number % 2 else json.dumps(peaks))
            text = json.dumps(entry, indent=2 if layout == "pretty" else None).encode()
            if number and rng.random() < 0.5:
                text = mutate_json(text, rng)
                num_mutated += 1
            else:
                good[entry["spectrum_id"]] = peaks
            texts.append(text)
        data = b"\n".join(texts) if layout == "a line each" else b"[" + b",\n".join(texts) + b"]"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "BLOCK_BYTES", int(rng.integers(1_000, 60_000)))
            pieces = list(blocks.cut(GNPS_JSON, "x", iter([data[:50_000], data[50_000:]]), lambda: False))
        found = [r for piece in pieces for r in blocks.parse_piece(GNPS_JSON, piece)]
        assert [r.position for r in found] == list(range(1, len(found) + 1))
        whole = {r.native_id: np.stack([r.mz, r.intensity], axis=1).tolist() for r in found if r.problem is None}
        assert {name: whole.get(name) for name in good} == good, f"seed {seed}"
        misses += abs(len(found) - per_file)
    assert num_mutated > 3_300  # three layouts: ten thousand
    assert misses < 0.08 * num_mutated  # doubled or deleted whole, or two broken neighbours taken for one


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "[1, 2]",
        '{"a": {"peaks_json": []}}',
        '{"spectra": [{"spectrum_id": "a", "peaks_json": []}, {"spectrum_id": "b", "peaks_json": []}]}',
        '["peaks_json"]',
        '[{"name": "say \\"peaks_json\\": "}]',
        '{"format_version": "1.0", "spectra": [{"attributes": [], "mzs": [1.0], "intensities": [1.0]}]}',
        "peaks_json: [[1, 2]]",
        '[{"points": [[1, 2]]}]',
    ],
)
def test_other_json_is_not_taken_for_spectra(tmp_path, text):
    assert not GNPS_JSON.looks_like(text.encode())
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="no format that ionbed reads"):
        read_records(tmp_path / "x.json")


def test_what_matchms_writes(tmp_path):
    matchms = pytest.importorskip("matchms")
    exporting = pytest.importorskip("matchms.exporting")
    metadata = [
        {"precursor_mz": 185.07, "charge": 1, "ionmode": "positive", "compound_name": "a", "spectrum_id": "s1"},
        {"compound_name": "b", "adduct": "[M-H]-", "precursor_mz": 183.05, "ionmode": "negative", "spectrum_id": "s2"},
    ]
    spectra = [
        matchms.Spectrum(np.array([50.0, 100.5]), np.array([0.5, 1.0]), metadata={**m, "inchikey": "x"})
        for m in metadata
    ]
    exporting.save_as_json(spectra, str(tmp_path / "x.json"))
    found = list(read_records(tmp_path / "x.json"))
    assert [(r.native_id, r.problem, r.mz.tolist()) for r in found] == [
        ("s1", None, [50.0, 100.5]),
        ("s2", None, [50.0, 100.5]),
    ]
    assert found[0].fields == {"precursor_mz": "185.07", "charge": "1", "polarity": "positive", "name": "a"}
    assert found[1].fields["adduct"] == "[M-H]-"


def test_what_mzmine_writes(tmp_path):
    """One object a line, with its peaks under another key."""
    entry = {"softwaresource": "mzmine", "feature_id": "7", "compound_name": "a", "precursor_mz": 185.07,
             "adduct": "[M+H]+", "ms_level": 2, "peaks": [[50.0, 0.5], [100.5, 1.0]]}  # fmt: skip
    found = read(tmp_path, "\n".join(json.dumps(entry | {"feature_id": str(n)}) for n in (7, 8)).encode())
    assert [(r.native_id, r.problem, len(r), r.fields["precursor_mz"]) for r in found] == [
        ("7", None, 2, "185.07"),
        ("8", None, 2, "185.07"),
    ]
