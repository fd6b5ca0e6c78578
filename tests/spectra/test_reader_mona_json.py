"""MoNA json: metadata in lists of names and values, compounds, computed spectra, and broken records."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ionbed
from ionbed.spectra.readers import blocks, read_records
from ionbed.spectra.readers.gnps_json import GNPS_JSON
from ionbed.spectra.readers.mona_json import MONA_JSON

from .mutation import mutate_json


def entry(name, value, **more):
    return {"category": "none", "computed": False, "hidden": False, "name": name, "value": value} | more


METADATA = (
    entry("accession", "AU100601"),
    entry("license", "CC BY"),
    entry("comment", "CONFIDENCE standard compound"),
    entry("comment", "INTERNAL_ID 1006"),
    entry("exact mass", 284.0135),
    entry("instrument", "Bruker maXis Impact"),
    entry("instrument type", "LC-ESI-QTOF"),
    entry("ms level", "MS2", category="mass spectrometry"),
    entry("ionization", "ESI"),
    entry("fragmentation mode", "CID"),
    entry("collision energy", "Ramp 21.1-31.6 eV"),
    entry("retention time", "4.6 min"),
    entry("ionization mode", "positive"),
    entry("precursor m/z", 285.0208, category="focused ion"),
    entry("precursor type", "[M+H]+", category="focused ion"),
    entry("mass error", 4.98e-5, unit="Da", computed=True),
)
SMILES = "c1cc(ccc1N)S(=O)(=O)Nc2cncc(n2)Cl"
INCHI = "InChI=1S/C10H9ClN4O2S/c11-9-5-13-6-10(14-9)15-18(16,17)8-3-1-7(12)2-4-8/h1-6H,12H2,(H,14,15)"


def compound(**changes):
    return {
        "inchi": INCHI,
        "inchiKey": "QKLPUVXBJHRFQZ-UHFFFAOYSA-N",
        "metaData": [
            entry("SMILES", "O=S(=O)(N=C1C=NC=C(Cl)N1)C2=CC=C(N)C=C2", computed=True),
            entry("molecular formula", "C10H9ClN4O2S"),
            entry("SMILES", SMILES),
            entry("pubchem cid", 66890),
        ],
        "molFile": '\n  CDK {["\\\n\n 18 19  0  0\nM  END\n',
        "names": [{"computed": False, "name": "Sulfaclozine", "score": 0.0}, {"name": "other"}],
        "tags": [],
        "kind": "biological",
        "classification": [
            entry("kingdom", "Organic compounds", computed=True),
            entry("alternative parent", "Pyrazines", computed=True),
            entry("superclass", "Benzenoids", computed=True),
            entry("class", "Benzene and substituted derivatives", computed=True),
        ],
    } | changes


def record(number=0, **changes):
    fields = {
        "compound": [compound()],
        "id": f"AU{number:06d}",
        "dateCreated": 1487110669411,
        "metaData": [*METADATA],
        "annotations": [entry("C4H5+", 53.0389, category="annotation")],
        "score": {"impacts": [{"value": 2.0, "reason": "spectrum"}], "score": 5.0},
        "spectrum": f"53.0389:0.594951 {100 + number}.5:100.000000 55.0178:0.0",
        "splash": {"block1": "splash10", "splash": "splash10-0a4i-1900000000-d2bc1c887f6f99ed0f74"},
        "submitter": {"id": "massbank", "emailAddress": "a@b.c", "institution": "University of Athens"},
        "tags": [{"ruleBased": False, "text": "MassBank"}, {"ruleBased": True, "text": "LC-MS"}],
        "library": {"library": "MassBank", "description": "MassBank High Quality Mass Spectral Database",
                    "tag": {"ruleBased": False, "text": "MassBank"}},
    }  # fmt: skip
    return {key: value for key, value in (fields | changes).items() if value is not None}


def read(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return list(read_records(path))


def one(tmp_path, **changes):
    (found,) = read(tmp_path, [record(**changes)])
    return found


def with_metadata(*entries):
    names = {item["name"] for item in entries}
    return [item for item in METADATA if item["name"] not in names] + list(entries)


def test_a_record_of_an_export(tmp_path):
    found = one(tmp_path)
    assert (found.native_id, found.position, found.problem, found.repairs) == ("AU000000", 1, None, ())
    assert found.fields == {
        "license": "CC BY",
        "comment": "CONFIDENCE standard compound; INTERNAL_ID 1006",
        "instrument": "Bruker maXis Impact",
        "instrument_type": "LC-ESI-QTOF",
        "ms_level": "2",
        "activation": "CID",
        "collision_energy": "Ramp 21.1-31.6 eV",
        "retention_time": "4.6 min",
        "polarity": "positive",
        "precursor_mz": "285.0208",
        "adduct": "[M+H]+",
        "formula": "C10H9ClN4O2S",
        "smiles": SMILES,
        "inchi": INCHI,
        "inchikey": "QKLPUVXBJHRFQZ-UHFFFAOYSA-N",
        "name": "Sulfaclozine",
        "chemical_class": "Organic compounds; Benzenoids; Benzene and substituted derivatives",
        "laboratory": "University of Athens",
    }
    assert found.mz.tolist() == [53.0389, 100.5, 55.0178]
    assert found.intensity.tolist() == [0.594951, 100.0, 0.0]


def test_a_spectrum_from_it(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([record()]))
    (spectrum,) = ionbed.read(tmp_path / "x.json")
    assert (spectrum.adduct, spectrum.charge, spectrum.license, spectrum.predicted) == ("[M+H]+", 1, "CC BY", False)
    assert spectrum.retention_time == pytest.approx(276.0)
    assert spectrum.collision_energy == pytest.approx(26.35)
    assert spectrum.inchikey == "QKLPUVXBJHRFQZ-UHFFFAOYSA-N"


@pytest.mark.parametrize(
    ("entries", "field", "expected"),
    [
        ([entry("collision energy", 35)], "collision_energy", "35"),
        ([entry("collision energy", "35", unit="eV")], "collision_energy", "35 eV"),
        ([entry("collision energy", "35 % (nominal)", unit="eV")], "collision_energy", "35 % (nominal)"),
        ([entry("retention time", 4.6, unit="min")], "retention_time", "4.6 min"),
        ([entry("retention time", "276", unit="sec")], "retention_time", "276 sec"),
        ([entry("ms level", "MS")], "ms_level", "1"),
        ([entry("ms level", "MS3")], "ms_level", "3"),
        ([entry("precursor m/z", "285,0208")], "precursor_mz", "285,0208"),
        (
            [entry("precursor m/z", "285.02", computed=True), entry("precursor m/z", 285.0208)],
            "precursor_mz",
            "285.0208",
        ),
        ([entry("precursor m/z", "1", deleted=True)], "precursor_mz", None),
        ([entry("precursor m/z", None)], "precursor_mz", None),
        ([{"value": 3}, "text", None, entry(5, 5), entry("precursor type", "[M-H]-")], "adduct", "[M-H]-"),
    ],
)
def test_metadata(tmp_path, entries, field, expected):
    metadata = [
        item for item in METADATA if item["name"] not in (field.replace("_", " "), "precursor m/z", "precursor type")
    ]
    assert one(tmp_path, metaData=metadata + entries).fields.get(field) == expected


def test_a_retention_time_without_unit_is_left_out(tmp_path):
    found = one(tmp_path, metaData=with_metadata(entry("retention time", 4.6)))
    assert "retention_time" not in found.fields
    assert found.repairs == ("retention-time-without-unit",)


def test_the_compound_that_was_measured_comes_before_its_derivative(tmp_path):
    derivative = compound(kind="derivatized", names=[{"name": "derivative"}])
    assert one(tmp_path, compound=[derivative, compound()]).fields["name"] == "Sulfaclozine"
    assert one(tmp_path, compound=[derivative]).fields["name"] == "derivative"
    assert one(tmp_path, compound=derivative).fields["name"] == "derivative"
    assert "name" not in one(tmp_path, compound=[]).fields


@pytest.mark.parametrize(
    ("changes", "is_predicted"),
    [
        ({}, False),
        ({"tags": [{"text": "LipidBlast"}, {"text": "In-Silico"}]}, True),
        ({"library": {"library": "LipidBlast", "description": "LipidBlast In-Silico Library"}}, True),
        ({"library": {"library": "FAHFA"}}, True),
        ({"library": {"library": "x", "tag": {"text": "in silico"}}}, True),
        ({"library": None, "tags": None}, False),
        ({"library": "MassBank", "tags": ["x"]}, False),
        ({"library": {"library": "MetaboBASE", "description": "Bruker MetaboBASE library"}}, False),
    ],
)
def test_computed_spectra_are_told(tmp_path, changes, is_predicted):
    assert one(tmp_path, **changes).fields.get("predicted") == ("true" if is_predicted else None)
    (spectrum,) = ionbed.read(tmp_path / "x")
    assert spectrum.predicted is is_predicted


@pytest.mark.parametrize(
    ("peaks", "problem", "expected"),
    [
        ("50:1 60.5:2e1", None, [50.0, 60.5]),
        ("  50:1\n60.5:2 ", None, [50.0, 60.5]),
        ("50:1 60.5:nan", None, [50.0, 60.5]),
        ("", "no-peaks", []),
        (None, "no-peaks", []),
        (12, "no-peaks", []),
        ("50 1 60 2", "bad-peak-line", []),
        ("50:1 60", "bad-peak-line", []),
        ("50:1:2 60:3", "bad-peak-line", []),
        ("50:1:2 3", "bad-peak-line", []),
        ("50:1 x:2", "bad-peak-line", []),
        ("5_0:1", "bad-peak-line", []),
    ],
)
def test_peaks(tmp_path, peaks, problem, expected):
    found = read(tmp_path, [record(0), record(1) | {"spectrum": peaks}, record(2)])
    assert [(r.position, r.problem, r.mz.tolist()) for r in found] == [
        (1, None, [53.0389, 100.5, 55.0178]),
        (2, problem, expected),
        (3, None, [53.0389, 102.5, 55.0178]),
    ]
    assert found[1].repairs == (("bad-peak",) if "nan" in str(peaks) else ())


LAYOUTS = {
    "export": lambda records: "[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]",
    "one line": lambda records: json.dumps(records, separators=(",", ":")),
    "pretty": lambda records: json.dumps(records, indent="\t").replace("\n", "\r\n"),
    "a line each": lambda records: "\n".join(json.dumps(r) for r in records),
    "key by key": lambda records: json.dumps(records, sort_keys=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 5])
def test_layouts(tmp_path, layout, count):
    found = read(tmp_path, LAYOUTS[layout]([record(n) for n in range(count)]).encode())
    assert [(r.native_id, r.position, r.problem, len(r)) for r in found] == [
        (f"AU{n:06d}", n + 1, None, 3) for n in range(count)
    ]


def test_an_answer_with_one_record(tmp_path):
    (found,) = read(tmp_path, json.dumps(record(), indent=2).encode())
    assert (found.native_id, found.problem) == ("AU000000", None)


def test_a_record_whose_peaks_come_after_the_first_bytes_is_recognised(tmp_path):
    found = read(tmp_path, [record(n, annotations=[entry("C4H5+", 53.0389)] * 2000) for n in range(2)])
    assert [r.problem for r in found] == [None, None]


def test_the_json_formats_are_not_taken_for_each_other():
    mona = json.dumps([record()]).encode()
    gnps = json.dumps([{"spectrum_id": "a", "compound": [], "metaData": [], "peaks_json": []}]).encode()
    mzspeclib = (
        b'{"format_version": "1.0", "attributes": [], "spectra": [{"attributes": [], "mzs": [], "intensities": []}]}'
    )
    assert MONA_JSON.looks_like(mona)
    assert not GNPS_JSON.looks_like(mona)
    assert GNPS_JSON.looks_like(gnps)
    assert not MONA_JSON.looks_like(json.dumps([{"spectrum_id": "a", "peaks_json": []}]).encode())
    assert not MONA_JSON.looks_like(mzspeclib)
    assert not MONA_JSON.looks_like(b'{"records": ' + mona + b"}")
    assert not MONA_JSON.looks_like(b'[{"compound": "aspirin", "metaData": []}]')


@given(text=st.text(alphabet='{}[]",:\\ ab', max_size=30), place=st.sampled_from(["molFile", "inchi", "kind"]))
@settings(max_examples=100, deadline=None)
def test_any_text_may_stand_in_a_record(text, place):
    data = json.dumps([record(0), record(1, compound=[compound(**{place: text})]), record(2)]).encode()
    (piece,) = blocks.cut(MONA_JSON, "x", iter([data]), lambda: False)
    found = list(blocks.parse_piece(MONA_JSON, piece))
    assert [(r.native_id, r.problem) for r in found] == [(f"AU{n:06d}", None) for n in range(3)]


@pytest.mark.parametrize("value", [None, 5, "text", True, [], {}, [None], [[]], {"a": 1}])
@pytest.mark.parametrize(
    "key", ["compound", "metaData", "spectrum", "submitter", "tags", "library", "id", "annotations", "score"]
)
def test_values_of_any_type_cost_only_their_record(tmp_path, key, value):
    found = read(tmp_path, [record(0), record(1) | {key: value}, record(2)])
    assert [r.problem for r in found if r.position != 2] == [None, None]
    assert found[1].problem in (None, "no-peaks", "bad-peak-line")


def test_ten_thousand_mutated_records_cost_no_good_one():
    num_files, per_file = 100, 200
    num_mutated, misses = 0, 0
    for seed in range(num_files):
        rng = np.random.default_rng(seed)
        texts, good = [], {}
        for number in range(per_file):
            peaks = np.round(rng.random((int(rng.integers(1, 5)), 2)) * 900 + 1, 3)
            spectrum = " ".join(f"{mz}:{intensity}" for mz, intensity in peaks.tolist())
            found = record(number, spectrum=spectrum, annotations=None, score=None, metaData=METADATA[10:])
            text = json.dumps(found).encode()
            if number % 2 and number < per_file - 1:
                text = mutate_json(text, rng)
                num_mutated += 1
            else:
                good[found["id"]] = peaks.tolist()
            texts.append(text)
        data = b"[\n" + b",\n".join(texts) + b"\n]"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "BLOCK_BYTES", int(rng.integers(1_000, 90_000)))
            pieces = list(blocks.cut(MONA_JSON, "x", iter([data[:90_000], data[90_000:]]), lambda: False))
        found = [r for piece in pieces for r in blocks.parse_piece(MONA_JSON, piece)]
        assert [r.position for r in found] == list(range(1, len(found) + 1))
        whole = {r.native_id: np.stack([r.mz, r.intensity], axis=1).tolist() for r in found if r.problem is None}
        assert {name: whole.get(name) for name in good} == good, f"seed {seed}"
        misses += abs(len(found) - per_file)
    assert num_mutated >= 9_900
    assert misses < 0.08 * num_mutated  # doubled or deleted whole, or one broken record taken for two
