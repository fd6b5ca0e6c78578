"""The precursor m/z against structure, adduct and polarity: what is mended, what is flagged, what is left alone."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ionbed.spectra.adducts import adduct_mz, normalise_adduct
from ionbed.spectra.harmonise import Dropped, harmonise
from ionbed.spectra.molecules import standardise
from ionbed.spectra.precursor import DEFAULT_METADATA, MetadataOptions, Statement, has_unit_resolution
from ionbed.spectra.readers import read_records
from ionbed.spectra.record import RawRecord
from ionbed.spectra.spectrum import Spectrum

CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"  # C8H10N4O2, 194.080376 Da
CHOLINE = "C[N+](C)(C)CCO"  # the atoms of C5H14NO+ weigh 104.107539 Da
CHLOROPHENOL = "Oc1ccc(Cl)cc1Cl"  # C6H4Cl2O, 161.963920 Da
QTOF = "LC-ESI-QTOF"


def harmonised(
    options: MetadataOptions = DEFAULT_METADATA, peaks: tuple[float, ...] = (50.0, 60.0), **fields: str
) -> tuple[Spectrum | Dropped, Counter[str]]:
    repaired: Counter[str] = Counter()
    mz = np.array(peaks)
    record = RawRecord("library.msp", "A1", 1, fields, mz, np.ones(len(mz)))
    return harmonise(record, repaired=repaired, ms_levels=(2, 3), metadata=options), repaired


def spectrum_of(peaks: tuple[float, ...] = (50.0, 60.0), **fields: str) -> tuple[Spectrum, Counter[str]]:
    spectrum, repaired = harmonised(peaks=peaks, **fields)
    assert isinstance(spectrum, Spectrum)
    return spectrum, repaired


@pytest.mark.parametrize(
    ("mz", "adduct", "smiles", "instrument_type"),
    [
        ("195.0877", "[M+H]+", CAFFEINE, QTOF),
        ("195.0960", "[M+H]+", CAFFEINE, QTOF),  # 8 mDa: a poor calibration
        ("195.1", "[M+H]+", CAFFEINE, QTOF),  # rounded
        ("195", "[M+H]+", CAFFEINE, QTOF),
        ("195.45", "[M+H]+", CAFFEINE, "LC-ESI-QQ"),  # unit resolution
        ("194.0798", "[M]+", CAFFEINE, QTOF),  # a radical cation, as stated
        ("104.1070", "[M]+", CHOLINE, QTOF),
        ("731", "[M-H]-", "C" * 49 + "C(=O)O", QTOF),  # the nominal mass of an ion of m/z 731.77
    ],
)
def test_agreement_is_left_alone(mz: str, adduct: str, smiles: str, instrument_type: str) -> None:
    spectrum, repaired = spectrum_of(precursor_mz=mz, adduct=adduct, smiles=smiles, instrument_type=instrument_type)
    assert spectrum.adduct == adduct
    assert not spectrum.flags
    assert not repaired


@pytest.mark.parametrize(
    ("mz", "stated", "polarity", "smiles", "adduct"),
    [
        ("217.0696", "[M+H]+", "positive", CAFFEINE, "[M+Na]+"),
        ("233.0435", "[M+H]+", "positive", CAFFEINE, "[M+K]+"),
        ("239.0786", "[M-H]-", "negative", CAFFEINE, "[M+HCOO]-"),
        ("98.0475", "[M+H]+", "positive", CAFFEINE, "[M+2H]2+"),
        ("389.1680", "[M+H]+", "positive", CAFFEINE, "[2M+H]+"),
        ("104.1070", "[M+H]+", "positive", CHOLINE, "[M]+"),
        ("104", "[M+H]+", "positive", CHOLINE, "[M]+"),
        ("195.0877", None, "positive", CAFFEINE, "[M+H]+"),
        ("195.0877", "[M+H]+/[M+Na]+", "positive", CAFFEINE, "[M+H]+"),
        ("193.0731", None, "negative", CAFFEINE, "[M-H]-"),
        ("195.1", None, "positive", CAFFEINE, "[M+H]+"),
    ],
)
def test_the_adduct_that_fits_the_mass(mz: str, stated: str | None, polarity: str, smiles: str, adduct: str) -> None:
    fields = {"precursor_mz": mz, "polarity": polarity, "smiles": smiles, "instrument_type": QTOF}
    if stated:
        fields["adduct"] = stated
    spectrum, repaired = spectrum_of(**fields)
    assert spectrum.adduct == adduct
    assert spectrum.polarity == (1 if adduct.endswith("+") else -1)
    assert spectrum.charge is not None
    assert abs(spectrum.charge) == (2 if "2+" in adduct else 1)
    assert spectrum.precursor_mz == float(mz)
    assert not spectrum.flags
    assert repaired == {"adduct-from-mass": 1}


@pytest.mark.parametrize(
    ("mz", "adduct", "smiles", "flag"),
    [
        ("198.1065", "[M+H]+", CAFFEINE, "precursor-mass"),  # the d3 standard, drawn without its label
        ("181.0720", "[M+H]+", CAFFEINE, "precursor-mass"),  # a structure of one CH2 too many
        ("195.30", "[M+H]+", CAFFEINE, "precursor-mass"),  # a bad number on a good instrument
        ("344.17", "[M+H]+", CAFFEINE, "precursor-mass"),  # a derivative
        ("162.9537", "[M-H]-", CHLOROPHENOL, "isotope-precursor"),  # one 37Cl
        ("196.0910", "[M+H]+", CAFFEINE, "isotope-precursor"),  # one 13C
        ("197.0849", "[M+H]+", CAFFEINE, "precursor-mass"),  # two units heavier, and no halogen
    ],
)
def test_what_no_ion_explains_is_flagged_and_kept_as_written(mz: str, adduct: str, smiles: str, flag: str) -> None:
    fields = {"precursor_mz": mz, "adduct": adduct, "smiles": smiles, "instrument_type": QTOF}
    spectrum, repaired = spectrum_of(**fields)
    assert spectrum.flags == (flag,)
    assert (spectrum.precursor_mz, spectrum.adduct) == (float(mz), adduct)
    assert spectrum.smiles == standardise(smiles).smiles  # type: ignore[union-attr]
    assert not repaired
    dropped, _ = harmonised(MetadataOptions(mass_mismatch="drop"), **fields)
    if flag == "precursor-mass":
        assert isinstance(dropped, Dropped)
        assert dropped.reason == "precursor-mass"
        assert adduct in dropped.detail
    else:
        assert isinstance(dropped, Spectrum)  # explained, so not dropped


@pytest.mark.parametrize(
    ("mz", "smiles"),
    [
        ("164.0441", "OCC1OC(O)C(O)C(O)C1O"),  # [M+H-NH3]+ of a sugar, which has no N
        ("73.0437", "OCc1ccccc1"),  # [M+H-2H2O]+ of a molecule with one O
    ],
)
@pytest.mark.parametrize("stated", ["[M+H]+", None])
def test_no_ion_loses_what_the_molecule_does_not_have(mz: str, smiles: str, stated: str | None) -> None:
    fields = {"precursor_mz": mz, "smiles": smiles, "polarity": "positive", "instrument_type": QTOF}
    spectrum, repaired = spectrum_of(**fields, **({"adduct": stated} if stated else {}))
    assert spectrum.adduct == stated
    assert spectrum.flags == (("precursor-mass",) if stated else ())
    assert not repaired


@pytest.mark.parametrize(("mz", "instrument_type"), [("217", QTOF), ("177", QTOF), ("217.2", "LC-ESI-QQ")])
def test_a_whole_number_does_not_replace_the_stated_adduct(mz: str, instrument_type: str) -> None:
    """It agrees by chance with a common adduct of every twentieth molecule."""
    fields = {"precursor_mz": mz, "smiles": CAFFEINE, "polarity": "positive", "instrument_type": instrument_type}
    spectrum, repaired = spectrum_of(adduct="[M+H]+", **fields)
    assert (spectrum.adduct, spectrum.flags) == ("[M+H]+", ("precursor-mass",))
    assert not repaired
    assert spectrum_of(**fields)[1] == {"adduct-from-mass": 1}  # where none is stated it is the best there is


@pytest.mark.parametrize(
    ("smiles", "mz", "stated", "polarity", "adduct", "sign", "repair", "flags"),
    [
        (CAFFEINE, "194.0804", "[M]-", "positive", "[M]-", 1, None, ("polarity-conflict",)),
        (CAFFEINE, "194.0804", "[M]+", "negative", "[M]+", -1, None, ("polarity-conflict",)),
        (CHOLINE, "104.1070", "[M]-", "positive", "[M]+", 1, "adduct-from-mass", ()),
        (CHOLINE, "104.1070", "[M]+", "negative", "[M]+", 1, "polarity-from-adduct", ()),
        ("CC(N)C(=O)[O-]", "88.0404", "[M]+", "negative", "[M]-", -1, "adduct-from-mass", ()),
    ],
)
def test_no_mass_tells_a_cation_from_an_anion(
    smiles: str,
    mz: str,
    stated: str,
    polarity: str,
    adduct: str,
    sign: int,
    repair: str | None,
    flags: tuple[str, ...],
) -> None:
    """They differ by two electrons; the charge of the structure decides, where it has one."""
    spectrum, repaired = spectrum_of(precursor_mz=mz, smiles=smiles, adduct=stated, polarity=polarity)
    assert (spectrum.adduct, spectrum.polarity, spectrum.charge, spectrum.flags) == (adduct, sign, sign, flags)
    assert dict(repaired) == ({repair: 1} if repair else {})


def test_flagging_mends_nothing() -> None:
    fields = {"precursor_mz": "217.0696", "adduct": "[M+H]+", "smiles": CAFFEINE, "instrument_type": QTOF}
    spectrum, repaired = harmonised(MetadataOptions(mass_mismatch="flag"), **fields)
    assert isinstance(spectrum, Spectrum)
    assert (spectrum.adduct, spectrum.flags) == ("[M+H]+", ("precursor-mass",))
    assert not repaired


def test_formate_and_acetate_are_not_exchanged() -> None:
    """They differ by CH2, and so do the molecules that are taken for one another."""
    spectrum, _ = spectrum_of(precursor_mz="239.0786", adduct="[M+CH3COO]-", smiles=CAFFEINE, instrument_type=QTOF)
    assert (spectrum.adduct, spectrum.flags) == ("[M+CH3COO]-", ("precursor-mass",))


def test_a_radical_ion_is_never_guessed() -> None:
    spectrum, _ = spectrum_of(precursor_mz="194.0798", polarity="positive", smiles=CAFFEINE, instrument_type=QTOF)
    assert spectrum.adduct is None
    assert not spectrum.flags


@pytest.mark.parametrize(
    ("smiles", "mz", "stated", "part", "adduct"),
    [
        ("Cl.CN(C)C(=N)NC(N)=N", "130.1087", "[M+H]+", "CN(C)C(=N)NC(=N)N", "[M+H]+"),
        ("Cl.CN(C)C(=N)NC(N)=N", "130.1087", None, "CN(C)C(=N)NC(=N)N", "[M+H]+"),
        ("[Br-].CCCC[N+](CCCC)(CCCC)CCCC", "242.2842", "[M]+", "CCCC[N+](CCCC)(CCCC)CCCC", "[M]+"),
        ("CCCCCC(=O)[O-].[Na+]", "115.0765", "[M-H]-", "CCCCCC(=O)O", "[M-H]-"),
        ("CCCCCC(=O)[O-].[Na+]", None, "[M-H]-", "CCCCCC(=O)O", "[M-H]-"),
        ("Cn1c(=O)c2c(ncn2C)n(C)c1=O.O", "195.0877", "[M+H]+", CAFFEINE, "[M+H]+"),
    ],
)
def test_salts_and_hydrates(smiles: str, mz: str | None, stated: str | None, part: str, adduct: str) -> None:
    polarity = "negative" if adduct.endswith("-") else "positive"
    fields = {"smiles": smiles, "polarity": polarity, "precursor_mz": mz, "adduct": stated}
    spectrum, repaired = spectrum_of(**{name: text for name, text in fields.items() if text is not None})
    molecule = standardise(part)
    assert molecule is not None
    assert (spectrum.smiles, spectrum.inchikey, spectrum.formula) == (
        molecule.smiles,
        molecule.inchikey,
        molecule.formula,
    )
    assert spectrum.adduct == adduct
    assert spectrum.precursor_mz == pytest.approx(adduct_mz(molecule.exact_mass, normalise_adduct(adduct)), abs=1e-3)  # type: ignore[arg-type]
    assert repaired["counter-ion-removed"] == 1
    assert not spectrum.flags


def test_the_name_of_a_salt_is_no_conflict_for_its_part() -> None:
    salt = standardise("Cl.CN(C)C(=N)NC(N)=N")
    assert salt is not None
    spectrum, _ = spectrum_of(
        smiles=salt.smiles, inchikey=salt.inchikey, formula=salt.formula, precursor_mz="130.1087", adduct="[M+H]+"
    )
    assert spectrum.formula == "C4H11N5"
    assert not spectrum.flags


def test_a_mixture_of_isomers_is_not_cut() -> None:
    spectrum, _ = spectrum_of(smiles="CCCO.CC(C)O", precursor_mz="61.0648", adduct="[M+H]+", instrument_type=QTOF)
    assert spectrum.formula == "C6H16O2"
    assert spectrum.flags == ("precursor-mass",)


def test_the_inchi_that_fits_the_mass_is_believed() -> None:
    fields = {"smiles": "CCO", "precursor_mz": "195.0877", "adduct": "[M+H]+", "instrument_type": QTOF}
    caffeine = standardise(CAFFEINE)
    assert caffeine is not None
    inchi = "InChI=1S/C8H10N4O2/c1-10-4-9-6-5(10)7(13)12(3)8(14)11(6)2/h4H,1-3H3"
    spectrum, repaired = spectrum_of(inchi=inchi, inchikey=caffeine.inchikey, **fields)
    assert spectrum.inchikey == caffeine.inchikey
    assert repaired == {"structure-from-inchi": 1}
    assert not spectrum.flags
    spectrum, _ = spectrum_of(inchi=inchi, inchikey="LFQSCWFLJHTTHZ-UHFFFAOYSA-N", **fields)
    assert spectrum.flags == ("inchikey-conflict",)  # the key is of the SMILES


@pytest.mark.parametrize(
    ("fields", "adduct", "polarity", "charge", "repair", "flags"),
    [
        (
            {"adduct": "[M+H]+", "precursor_mz": "195.0877", "smiles": CAFFEINE},
            "[M+H]+", 1, 1, "polarity-from-adduct", (),
        ),
        (
            {"adduct": "[M+H]+", "precursor_mz": "193.0731", "smiles": CAFFEINE},
            "[M-H]-", -1, -1, "adduct-from-mass", (),
        ),
        ({"adduct": "[M+H]+", "precursor_mz": "195.0877"}, "[M+H]+", -1, -1, None, ("polarity-conflict",)),
        (
            {"adduct": "[M+H]+", "precursor_mz": "300.1", "smiles": CAFFEINE, "instrument_type": QTOF},
            "[M+H]+", -1, -1, None, ("polarity-conflict", "precursor-mass"),
        ),
    ],
)  # fmt: skip
def test_an_adduct_against_the_ion_mode(
    fields: dict[str, str], adduct: str, polarity: int, charge: int, repair: str | None, flags: tuple[str, ...]
) -> None:
    spectrum, repaired = spectrum_of(polarity="negative", **fields)
    assert (spectrum.adduct, spectrum.polarity, spectrum.charge, spectrum.flags) == (adduct, polarity, charge, flags)
    assert dict(repaired) == ({repair: 1} if repair else {})


def test_no_precursor_is_computed_from_an_adduct_against_the_ion_mode() -> None:
    result, _ = harmonised(polarity="negative", adduct="[M+H]+", smiles=CAFFEINE)
    assert isinstance(result, Dropped)
    assert result.reason == "no-precursor-mz"


@pytest.mark.parametrize(
    ("mz", "adduct", "charge", "expected", "repair", "flags"),
    [
        ("195.0877", "[M+H]+", "2+", "[M+H]+", "charge-from-adduct", ()),
        ("98.0475", "[M+H]+", "2+", "[M+2H]2+", "adduct-from-mass", ()),
        ("98.0475", None, "2+", "[M+2H]2+", "adduct-from-mass", ()),
        ("98.0475", "[M+2H]2+", "1", "[M+2H]2+", "charge-from-adduct", ()),
    ],
)
def test_a_charge_against_the_adduct(
    mz: str, adduct: str | None, charge: str, expected: str, repair: str, flags: tuple[str, ...]
) -> None:
    fields = {"precursor_mz": mz, "charge": charge, "smiles": CAFFEINE, "polarity": "positive"}
    spectrum, repaired = spectrum_of(**fields, **({"adduct": adduct} if adduct else {}))
    assert (spectrum.adduct, spectrum.flags) == (expected, flags)
    assert repaired == {repair: 1}
    if adduct == "[M+H]+":  # and where no mass decides
        del fields["smiles"]
        spectrum, repaired = spectrum_of(**fields, adduct=adduct)
        assert (spectrum.adduct, spectrum.charge, spectrum.flags) == ("[M+H]+", 1, ("charge-conflict",))


def test_the_neutral_mass_is_no_precursor() -> None:
    fields = {"precursor_mz": "194.0804", "adduct": "[M+H]+", "smiles": CAFFEINE, "instrument_type": QTOF}
    spectrum, repaired = spectrum_of(peaks=(138.066, 195.0876), **fields)
    assert spectrum.precursor_mz == pytest.approx(195.08765, abs=1e-5)
    assert repaired == {"precursor-mz-from-neutral-mass": 1}
    spectrum, repaired = spectrum_of(peaks=(138.066, 194.0804), **fields)  # nothing speaks for it
    assert (spectrum.precursor_mz, spectrum.flags) == (194.0804, ("precursor-mass",))
    assert not repaired


def test_a_formula_alone_will_do() -> None:
    spectrum, repaired = spectrum_of(
        precursor_mz="217.0696", adduct="[M+H]+", formula="C8H10N4O2", instrument_type=QTOF
    )
    assert spectrum.adduct == "[M+Na]+"
    assert repaired == {"adduct-from-mass": 1}
    spectrum, _ = spectrum_of(precursor_mz="104.1070", adduct="[M]+", formula="C5H14NO+", instrument_type=QTOF)
    assert not spectrum.flags
    spectrum, _ = spectrum_of(precursor_mz="150.0", adduct="[M]+", formula="[13]C2H6O", instrument_type=QTOF)
    assert not spectrum.flags  # how many are 13C?


def test_a_labelled_structure_has_its_own_mass() -> None:
    labelled = "[2H]C([2H])([2H])n1c(=O)c2c(ncn2C)n(C)c1=O"
    spectrum, _ = spectrum_of(precursor_mz="198.1065", adduct="[M+H]+", smiles=labelled, instrument_type=QTOF)
    assert not spectrum.flags


def test_the_adduct_of_an_msn_spectrum_is_that_of_the_first_precursor() -> None:
    fields = {"ms_level": "3", "adduct": "[M+H]+", "smiles": CAFFEINE, "instrument_type": QTOF}
    spectrum, _ = spectrum_of(precursor_mz="195.0877/138.0662", **fields)
    assert (spectrum.precursor_mz, spectrum.flags) == (138.0662, ())
    spectrum, _ = spectrum_of(precursor_mz="201.0877/138.0662", **fields)
    assert (spectrum.precursor_mz, spectrum.flags) == (138.0662, ("precursor-mass",))
    spectrum, _ = spectrum_of(precursor_mz="138.0662", **fields)
    assert (spectrum.precursor_mz, spectrum.flags) == (138.0662, ())


@pytest.mark.parametrize(
    ("instrument_type", "instrument", "unit"),
    [("LC-ESI-QQ", None, True), ("LC-ESI-QqQ", None, True), ("LC-ESI-IT", None, True), ("ESI-QIT", None, True),
     ("LC-ESI-QTOF", None, False), ("LC-ESI-ITFT", None, False), ("LC-ESI-ITTOF", None, False),
     ("LC-ESI-QFT", None, False), (None, "Triple quadrupole", True), (None, "Q Exactive Plus", False),
     (None, None, False), (None, "Ion Trap", True), (None, "Quadrupole TOF", False), (None, "Orbitrap Elite", False),
     (None, "4000 QTRAP", True), (None, "linear trap", True)],
)  # fmt: skip
def test_what_has_unit_resolution(instrument_type: str | None, instrument: str | None, unit: bool) -> None:
    assert has_unit_resolution(instrument_type, instrument) is unit


@pytest.mark.parametrize(
    ("change", "words"),
    [({"mass_mismatch": "mend"}, "repair, flag or drop"), ({"mass_tolerance": 1.0}, "mass_tolerance is 1.0"),
     ({"repair_tolerance_ppm": -1.0}, "repair_tolerance_ppm")],
)  # fmt: skip
def test_bad_options_are_told(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MetadataOptions(**change)  # type: ignore[arg-type]


def test_tolerances() -> None:
    assert Statement(500.0, 4, False).tolerance(0.01, 20.0, 0.5) == 0.01
    assert Statement(1000.0, 4, False).tolerance(0.01, 20.0, 0.5) == pytest.approx(0.02)
    assert Statement(500.1, 1, False).tolerance(0.01, 20.0, 0.5) == 0.05
    assert Statement(300.0, 0, False).tolerance(0.01, 20.0, 0.5) == 0.5
    assert Statement(700.0, 0, False).tolerance(0.01, 20.0, 0.5) == pytest.approx(0.77)
    assert Statement(2000.0, 0, False).tolerance(0.01, 20.0, 0.5) == 0.9
    assert Statement(500.0, 4, True).tolerance(0.01, 20.0, 0.5) == 0.5


@given(
    st.sampled_from(["CCO", CAFFEINE, CHLOROPHENOL, "CC(C)C(N)C(=O)O", CHOLINE, "CCCCCC(=O)[O-].[Na+]"]),
    st.sampled_from(["[M+H]+", "[M+Na]+", "[M-H]-", "[M]+", "[M+2H]2+", "[M+HCOO]-"]),
    st.sampled_from([0.0, -1.00728, 1.00335, 1.99705, 21.98194, -21.98194, 15.99491, 0.3, -0.02]) | st.floats(-20, 400),
    st.sampled_from(["positive", "negative"]),
    st.integers(0, 6),
)
def test_what_is_flagged_stays_as_written_and_what_is_mended_agrees(
    smiles: str, adduct: str, error: float, polarity: str, decimals: int
) -> None:
    drawn, stated = standardise(smiles), normalise_adduct(adduct)
    assert drawn is not None
    assert stated is not None
    text = f"{adduct_mz(drawn.exact_mass, stated) + error:.{decimals}f}"
    assume(float(text) > 0)
    spectrum, _ = spectrum_of(precursor_mz=text, adduct=adduct, smiles=smiles, polarity=polarity, instrument_type=QTOF)
    assert spectrum.charge is not None
    assert spectrum.charge * (spectrum.polarity or 0) > 0
    assert spectrum.precursor_mz == float(text)
    if spectrum.flags:
        assert spectrum.adduct == adduct
        assert spectrum.polarity == (1 if polarity == "positive" else -1)
    if not {"precursor-mass", "isotope-precursor"} & set(spectrum.flags):
        molecule, found = standardise(spectrum.smiles or ""), normalise_adduct(spectrum.adduct)
        assert molecule is not None
        assert found is not None
        tolerance = Statement(float(text), len(text.partition(".")[2].rstrip("0")), False).tolerance(0.01, 20.0, 0.5)
        assert spectrum.precursor_mz == pytest.approx(adduct_mz(molecule.exact_mass, found), abs=tolerance)
        assert spectrum.polarity == found.polarity


@pytest.mark.data
@pytest.mark.timeout(300)
@pytest.mark.skipif("IONBED_DATA" not in os.environ, reason="IONBED_DATA does not name the folder of real data")
def test_massbank_adducts_follow_from_the_mass() -> None:
    """Hidden, the stated adduct of a record whose mass agrees is found again, or none is: never another one."""
    found: Counter[str] = Counter()
    archive = Path(os.environ["IONBED_DATA"]) / "massbank-records.tar.gz"
    for number, record in enumerate(read_records(archive, ms_levels=())):  # no peaks: they take the most time
        fields = record.fields
        if number % 10 or record.problem or not {"adduct", "smiles", "precursor_mz"} <= fields.keys():
            continue
        if fields.get("ms_level") != "2":
            continue
        stated, _ = harmonised(**fields)
        derived, _ = harmonised(**{name: text for name, text in fields.items() if name != "adduct"})
        if not isinstance(stated, Spectrum) or not isinstance(derived, Spectrum) or stated.flags:
            continue
        found["right" if derived.adduct == stated.adduct else "none" if derived.adduct is None else "wrong"] += 1
    assert found["wrong"] == 0
    assert found["none"] < 0.02 * found.total()
    assert found["right"] > 8_000
