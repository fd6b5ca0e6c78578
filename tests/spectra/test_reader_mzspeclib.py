"""mzSpecLib: attribute sets, groups and units, small molecules, and what breaks."""

from __future__ import annotations

import numpy as np
import pytest

import ionbed
from ionbed.spectra.readers import blocks, read_records

from .mutation import mutate

HEADER = """<mzSpecLib>
MS:1003186|library format version=1.0
MS:1003188|library name=test
[1]MS:1003207|library creation software=MS:1001477|SpectraST
MS:1003197|license URI=https://creativecommons.org/licenses/by/4.0/
<AttributeSet Spectrum=all>
MS:1000511|ms level=2
MS:1000031|instrument model=MS:1000855|LTQ Velos
MS:1000443|mass analyzer type=MS:1000484|orbitrap
MS:1000044|dissociation method=MS:1000422|beam-type collision-induced dissociation
MS:1000465|scan polarity=MS:1000130|positive scan
[1]MS:1000045|collision energy=39.0
[1]UO:0000000|unit=UO:0000266|electronvolt
MS:1003072|spectrum origin type=MS:1003073|observed spectrum

<AttributeSet Spectrum=NEGATIVE>
MS:1000465|scan polarity=MS:1000129|negative scan
[1]MS:1000138|normalized collision energy=30
[1]UO:0000000|unit=UO:0000187|percent
<AttributeSet Spectrum=DECOY>
MS:1003072|spectrum origin type=MS:1003195|shuffle-and-reposition decoy spectrum
<AttributeSet Analyte=all>
<AttributeSet Analyte=ETHANOL>
MS:1000868|SMILES formula=CCO
MS:1000866|molecular formula=C2H6O
<AttributeSet Interpretation=all>
"""
FULL = """<Spectrum=1>
# a comment
MS:1003061|library spectrum name=Ethanol
MS:1000744|selected ion m/z=47.1
MS:1003208|experimental precursor monoisotopic m/z=47.0491
[1]MS:1000894|retention time=3.5
[1]UO:0000000|unit=UO:0000031|minute
MS:1003063|universal spectrum identifier=mzspec:PXL000001:x:scan:1
MS:1003059|number of peaks=3
[2]MS:1003275|other attribute name=Instrument_type
[2]MS:1003276|other attribute value=LC-ESI-QFT
<Analyte=1>
[1]MS:1003212|library attribute set name=ETHANOL
MS:1002894|InChIKey=LFQSCWFLJHTTHZ-UHFFFAOYSA-N
MS:1003403|InChI=InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3
MS:1002813|adduct ion formula=[M+H]+
MS:1000041|charge state=1
<Interpretation=1>
MS:1002357|PSM-level probability=0.998
<InterpretationMember=1>
MS:1000041|charge state=7
<Peaks>
19.0178\t10.5\t?
29.0386\t999\tf{C2H5}/-0.0003,"two words"
# in between
47.0491\t20.0\tp/0.0001\t0.5

"""
PLAIN = """<Spectrum={0}>
MS:1003061|library spectrum name=s{0}
MS:1003208|experimental precursor monoisotopic m/z=200.1
MS:1003059|number of peaks=2
<Analyte=1>
MS:1000866|molecular formula=C2H6O
<Peaks>
50.5\t10\t?
60.25\t20.5\t?

"""


def records(tmp_path, text, name="x.mzSpecLib.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_records(path))


def plain(*lines, key=1):
    return HEADER + PLAIN.format(key).replace("<Analyte=1>", "\n".join([*lines, "<Analyte=1>"]))


def test_a_small_molecule(tmp_path):
    (record,) = records(tmp_path, HEADER + FULL)
    assert record.fields == {
        "precursor_mz": "47.0491",
        "charge": "1",
        "polarity": "positive scan",
        "ms_level": "2",
        "activation": "beam-type collision-induced dissociation",
        "instrument": "LTQ Velos",
        "instrument_type": "LC-ESI-QFT",
        "name": "Ethanol",
        "license": "https://creativecommons.org/licenses/by/4.0/",
        "usi": "mzspec:PXL000001:x:scan:1",
        "spectrum_type": "observed spectrum",
        "smiles": "CCO",
        "inchi": "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3",
        "inchikey": "LFQSCWFLJHTTHZ-UHFFFAOYSA-N",
        "formula": "C2H6O",
        "adduct": "[M+H]+",
        "collision_energy": "39.0 eV",
        "retention_time": "3.5 min",
    }
    assert (record.native_id, record.position, record.problem, record.repairs) == ("Spectrum=1", 1, None, ())
    assert record.mz.tolist() == [19.0178, 29.0386, 47.0491]
    assert record.intensity.tolist() == [10.5, 999.0, 20.0]
    (spectrum,) = ionbed.read(tmp_path / "x.mzSpecLib.txt")
    assert (spectrum.retention_time, spectrum.collision_energy, spectrum.polarity) == (210.0, 39.0, 1)
    assert (spectrum.smiles, spectrum.adduct, spectrum.charge, spectrum.predicted) == ("CCO", "[M+H]+", 1, False)


@pytest.mark.parametrize("name", ["x.mgf", "x", "x.mzML", "x.mzlib.txt"])
def test_content_tells_the_format_whatever_the_name(tmp_path, name):
    assert len(records(tmp_path, HEADER + FULL + PLAIN.format(2), name)) == 2


def test_a_set_that_is_named_goes_before_the_set_for_all_and_what_is_said_itself_before_both(tmp_path):
    named = "MS:1003212|library attribute set name=NEGATIVE"
    (record,) = records(tmp_path, plain(named))
    assert (record.fields["polarity"], record.fields["collision_energy"]) == ("negative scan", "30 (NCE)")
    (record,) = records(tmp_path, plain(named, "MS:1000045|collision energy=15"))
    assert (record.fields["polarity"], record.fields["collision_energy"]) == ("negative scan", "15 eV")
    (record,) = records(tmp_path, plain("MS:1000511|ms level=3"))
    assert record.fields["ms_level"] == "3"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["[1]MS:1000045|collision energy=20", "[1]UO:0000000|unit=UO:0000187|percent"], "20 (NCE)"),
        (["MS:1000045|collision energy=40 eV"], "40 eV"),
        (["MS:1000045|collision energy=20", "MS:1000045|collision energy=40"], "20/40 eV"),
        (["MS:1002013|collision energy ramp start=5", "MS:1002014|collision energy ramp end=60"], "Ramp 5-60 eV"),
        (["[3]MS:1003275|other attribute name=Collision_energy", "[3]MS:1003276|other attribute value=7 V"], "39.0 eV"),
    ],
)
def test_collision_energies(tmp_path, lines, expected):
    (record,) = records(tmp_path, plain(*lines))
    assert record.fields["collision_energy"] == expected


def test_a_retention_time_without_unit_is_left_out(tmp_path):
    (record,) = records(tmp_path, plain("MS:1000894|retention time=12"))
    assert "retention_time" not in record.fields
    assert record.repairs == ("retention-time-without-unit",)
    (record,) = records(tmp_path, plain("[1]MS:1000016|scan start time=12", "[1]UO:0000000|unit=UO:0000010|second"))
    assert record.fields["retention_time"] == "12 s"


@pytest.mark.parametrize(
    ("line", "predicted"),
    [
        ("MS:1003072|spectrum origin type=MS:1003074|predicted spectrum", True),
        ("MS:1003212|library attribute set name=DECOY", True),
        ("MS:1003072|spectrum origin type=MS:1003073|observed spectrum", False),
    ],
)
def test_what_no_instrument_measured_is_marked(tmp_path, line, predicted):
    (tmp_path / "x").write_text(plain(line))
    (spectrum,) = ionbed.read(tmp_path / "x")
    assert spectrum.predicted is predicted


def test_precursor_in_the_order_of_trust(tmp_path):
    text = PLAIN.format(1).replace("MS:1003208|experimental precursor monoisotopic m/z=200.1\n", "")
    given = [
        ("<Analyte=1>", "<Analyte=1>\nMS:1003053|theoretical monoisotopic m/z=204"),
        ("<Analyte=1>", "MS:1000827|isolation window target m/z=203\n<Analyte=1>"),
        ("<Analyte=1>", "MS:1000744|selected ion m/z=202\n<Analyte=1>"),
        ("<Analyte=1>", "MS:1003208|experimental precursor monoisotopic m/z=201\n<Analyte=1>"),
    ]
    for expected, (old, new) in zip(["204", "203", "202", "201"], given, strict=True):
        text = text.replace(old, new, 1)
        (record,) = records(tmp_path, HEADER + text)
        assert record.fields["precursor_mz"] == expected


def test_what_several_analytes_disagree_on_is_left_out(tmp_path):
    second = "<Analyte=2>\nMS:1000866|molecular formula=C3H8O\nMS:1002813|adduct ion formula=[M+H]+\n<Peaks>"
    text = HEADER + PLAIN.format(1).replace("<Peaks>", second)
    (record,) = records(tmp_path, text)
    assert "formula" not in record.fields
    assert record.fields["adduct"] == "[M+H]+"
    assert record.repairs == ("several-analytes",)


def test_an_accession_among_the_other_attributes_is_the_id(tmp_path):
    (record,) = records(
        tmp_path, plain("[4]MS:1003275|other attribute name=DB#", "[4]MS:1003276|other attribute value=PS010904")
    )
    assert record.native_id == "PS010904"


def test_clusters_are_no_spectra(tmp_path):
    cluster = "<Cluster=1>\nMS:1003268|spectrum cluster member spectrum keys=1,2\n\n"
    found = records(tmp_path, HEADER + cluster + PLAIN.format(1) + cluster + PLAIN.format(2) + cluster)
    assert [(r.native_id, len(r), r.problem) for r in found] == [("Spectrum=1", 2, None), ("Spectrum=2", 2, None)]


@pytest.mark.parametrize(
    ("old", "new", "problem", "repairs"),
    [
        ("number of peaks=2", "number of peaks=5", None, ("peak-count",)),
        ("60.25\t20.5\t?", "60,25\t20,5\t?", None, ("decimal-comma",)),
        ("60.25\t20.5\t?", "60.25 20.5", None, ()),
        ("60.25\t20.5\t?", "60.25\tx\t?", "bad-peak-line", ()),
        ("60.25\t20.5\t?", "60.25", "bad-peak-line", ()),
        ("50.5\t10\t?\n60.25\t20.5\t?\n", "", "no-peaks", ()),
        ("<Peaks>\n50.5\t10\t?\n60.25\t20.5\t?\n", "", "no-peaks", ()),
        ("name=s1", "name=\u00b5", None, ()),
    ],
)
def test_a_broken_record_costs_only_itself(tmp_path, old, new, problem, repairs):
    text = HEADER + PLAIN.format(0) + PLAIN.format(1).replace(old, new) + PLAIN.format(2)
    first, broken, last = records(tmp_path, text)
    assert (first.problem, last.problem, len(first), len(last)) == (None, None, 2, 2)
    assert (broken.native_id, broken.problem, broken.repairs) == ("Spectrum=1", problem, repairs)


def test_latin_1(tmp_path):
    (record,) = records(tmp_path, plain().replace("name=s1", "name=µ").encode("latin-1"))
    assert (record.fields["name"], record.repairs) == ("µ", ("not-utf-8",))


@pytest.mark.parametrize(
    "end",
    ["<Spectrum=2", "<Spectrum=2>\nMS:1003061|library", "<Peaks>\n50.5\t10\t?\n60.2", "60.25\t2", "60.25\t20.5\t"],
)
def test_a_truncated_last_record_is_told(tmp_path, end):
    text = PLAIN.format(2)
    assert end in text
    cut = text[: text.index(end) + len(end)]
    found = records(tmp_path, HEADER + PLAIN.format(1) + cut)
    assert found[0].problem is None
    assert [r.problem for r in found[1:]] == ([None] if end.endswith("20.5\t") else ["truncated"])


def test_ten_thousand_mutated_records(tmp_path, monkeypatch):
    """No crash, and a record between two broken ones is whole."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 16)
    rng = np.random.default_rng(20)
    parts = []
    for n in range(20_000):
        record = PLAIN.format(n).encode()
        parts.append(mutate(record.replace(b"name=s", b"name=bad"), rng) + b"\n\n" if n % 2 else record)
    data = HEADER.encode() + b"".join(parts)
    found = records(tmp_path, data)
    assert 19_500 < len(found) < 22_000  # some have lost every sign of themselves, some hold a part of themselves twice
    assert [r.position for r in found] == list(range(1, len(found) + 1))
    good = {(r.native_id, r.fields.get("name")): r for r in found}
    for n in range(0, 20_000, 2):
        record = good[f"Spectrum={n}", f"s{n}"]
        assert (record.problem, record.mz.tolist(), record.intensity.tolist()) == (None, [50.5, 60.25], [10.0, 20.5])
        assert set(record.repairs) <= {"not-utf-8"}  # bytes of the broken one may follow


def test_a_record_that_lost_its_first_line_is_a_record(tmp_path):
    for lost in ("", "Spectrum=1>", "<Spektrum=1>", "<Spectrum=1"):
        text = HEADER + PLAIN.format(0) + PLAIN.format(1).replace("<Spectrum=1>", lost) + PLAIN.format(2)
        found = records(tmp_path, text)
        assert [(r.fields["name"], len(r), r.problem) for r in found] == [(f"s{n}", 2, None) for n in range(3)]


def test_agrees_with_the_reader_of_the_format_s_authors(tmp_path):
    mzspeclib = pytest.importorskip("mzspeclib")
    text = HEADER.replace("shuffle-and-reposition ", "") + FULL.replace("# in between\n", "").replace(
        ',"two words"', ""
    )
    text += "".join(PLAIN.format(n) for n in range(2, 6))
    path = tmp_path / "x.mzSpecLib.txt"
    path.write_text(text)
    ours = list(read_records(path))
    theirs = list(mzspeclib.SpectrumLibrary(filename=str(path), index_type=mzspeclib.index.MemoryIndex))
    assert len(ours) == len(theirs) == 5
    for record, spectrum in zip(ours, theirs, strict=True):
        assert np.array_equal(record.mz, [peak[0] for peak in spectrum.peak_list])
        assert np.array_equal(record.intensity, [peak[1] for peak in spectrum.peak_list])
        assert record.fields["name"] == spectrum.name
        assert float(record.fields["precursor_mz"]) == spectrum.precursor_mz
