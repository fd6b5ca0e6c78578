"""Harmonisation: what a record's statements become when they are missing, wrong, or at odds with one another."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.cleaning import CleaningOptions
from ionbed.spectra.harmonise import Dropped, harmonise
from ionbed.spectra.record import FIELDS, RawRecord
from ionbed.spectra.spectrum import Spectrum

CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"
CAFFEINE_KEY = "RYYVLZVUVIJVGH-UHFFFAOYSA-N"


def record(
    *, problem: str | None = None, repairs: tuple[str, ...] = (), native_id: str = "A1", **fields: str
) -> RawRecord:
    fields.setdefault("precursor_mz", "195.0877")
    fields = {name: text for name, text in fields.items() if text is not None}
    mz, intensity = np.array([138.066, 110.071, 195.088]), np.array([400.0, 0.0, 200.0])
    return RawRecord("library.mgf", native_id, 7, fields, mz, intensity, problem, repairs)


def spectrum_of(**fields: str) -> tuple[Spectrum, Counter[str]]:
    repaired: Counter[str] = Counter()
    result = harmonise(record(**fields), repaired=repaired)
    assert isinstance(result, Spectrum)
    return result, repaired


def test_a_good_record() -> None:
    spectrum, repaired = spectrum_of(
        ms_level="2", adduct="M+H", polarity="Positive", charge="1", retention_time="1.5 min", collision_energy="30 eV",
        instrument_type="LC-ESI-QTOF", smiles=CAFFEINE, inchikey=CAFFEINE_KEY, formula="C8H10N4O2", name="Caffeine",
        license="CC BY", laboratory="Eawag",
    )  # fmt: skip
    assert spectrum.spectrum_id == spectrum.native_id == "A1"
    assert (spectrum.adduct, spectrum.charge, spectrum.polarity, spectrum.ms_level) == ("[M+H]+", 1, 1, 2)
    assert (spectrum.retention_time, spectrum.collision_energy, spectrum.collision_energy_raw) == (90.0, 30.0, "30 eV")
    assert (spectrum.inchikey, spectrum.formula, spectrum.name) == (CAFFEINE_KEY, "C8H10N4O2", "Caffeine")
    assert (spectrum.license, spectrum.laboratory, spectrum.source_file) == ("CC BY", "Eawag", "library.mgf")
    assert spectrum.mz.tolist() == pytest.approx([138.066, 195.088], abs=1e-4)
    assert spectrum.intensity.tolist() == [1.0, 0.5]
    assert not spectrum.predicted
    assert not repaired


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"problem": "bad-peak-line"}, "bad-peak-line"),
        ({"ms_level": "1"}, "ms-level"),
        ({"ms_level": "3"}, "ms-level"),
        ({"ms_level": "MSn"}, "ms-level"),
        ({"spectrum_representation": "profile"}, "profile"),
        ({"precursor_mz": "N/A"}, "no-precursor-mz"),
        ({"precursor_mz": "0"}, "no-precursor-mz"),
        ({"precursor_mz": "-3"}, "no-precursor-mz"),
        ({"precursor_mz": "300.1 200.2"}, "no-precursor-mz"),
        ({"precursor_mz": "N/A", "adduct": "[M+H]+"}, "no-precursor-mz"),
        ({"precursor_mz": "N/A", "adduct": "[M+H]+", "smiles": "C[N+](C)(C)CCO"}, "no-precursor-mz"),
    ],
)
def test_reasons_to_drop(changed: dict[str, str], reason: str) -> None:
    repaired: Counter[str] = Counter()
    result = harmonise(record(repairs=("peak-count",), **changed), repaired=repaired)
    assert isinstance(result, Dropped)
    assert result.reason == reason
    assert not repaired  # only what is kept counts as repaired


def test_too_few_peaks() -> None:
    result = harmonise(record(), CleaningOptions(min_peaks=3))
    assert result == Dropped("too-few-peaks", "2 of 3 peaks are left after cleaning")


def test_levels_are_a_choice_and_a_missing_one_is_taken() -> None:
    assert isinstance(harmonise(record(ms_level="3"), ms_levels=(2, 3)), Spectrum)
    assert spectrum_of()[0].ms_level is None


@pytest.mark.parametrize(
    ("fields", "adduct", "polarity", "charge", "repair"),
    [
        ({"charge": "1", "polarity": "negative"}, None, -1, -1, None),  # how many charges, without their sign
        ({"charge": "1+", "polarity": "NEGATIVE"}, None, -1, -1, "charge-sign"),
        ({"charge": "1", "adduct": "[M-H]-"}, "[M-H]-", -1, -1, None),
        ({"charge": "1⁺", "adduct": "[M-H]-"}, "[M-H]-", -1, -1, "charge-sign"),
        ({"charge": "-1", "polarity": "negative", "adduct": "[M-H]-"}, "[M-H]-", -1, -1, None),
        ({"charge": "1", "adduct": "[M+2H]++"}, "[M+2H]2+", 1, 2, "charge-from-adduct"),
        ({"adduct": "N/A", "charge": "0"}, None, None, None, None),
        ({"charge": "2+"}, None, 1, 2, None),
        ({"charge": "-2"}, None, -1, -2, None),
        ({"charge": "-1-", "polarity": "N"}, None, -1, -1, None),
        ({"charge": "2"}, None, None, None, None),
        ({"charge": "2+ and 3+"}, None, 1, None, None),
        ({"charge": "2-,3-"}, None, -1, None, None),
        ({"charge": "2+ and 3-"}, None, None, None, None),
        ({"polarity": "positive", "charge": "2+ and 3+"}, None, 1, None, None),
        ({"charge": "999+"}, None, None, None, None),
        ({"polarity": "+"}, None, 1, None, None),
        ({"polarity": "-"}, None, -1, None, None),
        ({"adduct": "[M+Foo]+"}, None, 1, 1, "charge-from-adduct-sign"),
        ({"adduct": "[M+Foo]2−"}, None, -1, -2, "charge-from-adduct-sign"),
        ({"adduct": "[M+Foo] +2"}, None, 1, 2, "charge-from-adduct-sign"),
        ({"adduct": "[M+Foo]+*"}, None, 1, 1, "charge-from-adduct-sign"),
        ({"adduct": "[M-H]-/[M-Ser]-"}, None, -1, -1, "charge-from-adduct-sign"),
        ({"adduct": "[M+H]+/[M+Foo]2+"}, None, 1, None, "charge-from-adduct-sign"),  # one of two charges
        ({"adduct": "[M+H]+ or [M-H]-"}, None, None, None, None),
        ({"adduct": "[M+(Foo)-2H]"}, None, None, None, None),
        ({"adduct": "[M+Foo]101+"}, None, None, None, None),
        ({"adduct": "[M+Foo]1"}, None, None, None, None),
        ({"adduct": "[M+Foo]+", "charge": "2"}, None, 1, 2, "charge-from-adduct-sign"),
        ({"adduct": "[M+Foo]2+", "polarity": "positive"}, None, 1, 2, "charge-from-adduct-sign"),
        ({"adduct": "[M+Foo]+", "polarity": "negative"}, None, -1, None, None),  # what was set is believed
        ({"adduct": "[M+Foo]+", "charge": "2-"}, None, -1, -2, None),
        ({"adduct": "[M+Foo]-", "instrument_type": "ESI+"}, None, 1, None, None),
    ],
)
def test_ion(
    fields: dict[str, str], adduct: str | None, polarity: int | None, charge: int | None, repair: str | None
) -> None:
    spectrum, repaired = spectrum_of(**fields)
    assert (spectrum.adduct, spectrum.polarity, spectrum.charge) == (adduct, polarity, charge)
    assert dict(repaired) == ({repair: 1} if repair else {})


@pytest.mark.parametrize(
    ("smiles", "adduct", "mz"),
    [(CAFFEINE, "[M+H]+", 195.08765), (CAFFEINE, "[M-H]-", 193.07310), ("C[N+](C)(C)CCO", "[M]+", 104.10699)],
)
def test_missing_precursor_from_structure_and_adduct(smiles: str, adduct: str, mz: float) -> None:
    spectrum, repaired = spectrum_of(precursor_mz="NA", smiles=smiles, adduct=adduct)
    assert spectrum.precursor_mz == pytest.approx(mz, abs=1e-5)
    assert repaired == {"precursor-mz-from-adduct": 1}


def test_decimal_comma() -> None:
    spectrum, repaired = spectrum_of(precursor_mz="195,0877")
    assert spectrum.precursor_mz == 195.0877
    assert repaired == {"decimal-comma": 1}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("13.2 min", 792.0), ("12.3 s", 12.3), ("12.3  sec", 12.3), ("88.1", 88.1), ("0 min", 0.0), ("0.5 h", 1800.0),
     ("5.1 min (in paper: 5.3 min)", 306.0), ("3,5 min", 210.0), ("N/A min", None),
     ("738-742", 740.0), ("12.3 - 12.5 min", 744.0), ("PT312.5S", 312.5), ("3.125e2", 312.5), ("1e999", None),
     ("1.0, 2.0 min", None), ("-1", None)],
)  # fmt: skip
def test_retention_time(text: str, seconds: float | None) -> None:
    assert spectrum_of(retention_time=text)[0].retention_time == (None if seconds is None else pytest.approx(seconds))


def test_labels_follow_the_structure() -> None:
    spectrum, repaired = spectrum_of(smiles="CCO", inchikey=CAFFEINE_KEY, formula="C8H10N4O2")
    assert (spectrum.inchikey, spectrum.formula) == ("LFQSCWFLJHTTHZ-UHFFFAOYSA-N", "C2H6O")
    assert spectrum.flags == ("formula-conflict", "inchikey-conflict")
    assert not repaired
    spectrum, repaired = spectrum_of(
        smiles="CC(N)C(=O)O", inchikey="InChIKey=QNAYBMKLOCPYGJ-REOHCLBHSA-N", precursor_mz="90.055", adduct="M+H"
    )
    assert spectrum.inchikey == "QNAYBMKLOCPYGJ-UHFFFAOYSA-N"
    assert not spectrum.flags
    assert repaired == {"inchikey-stereo-from-smiles": 1}


ETHANOL = "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3"


@pytest.mark.parametrize(
    ("fields", "smiles"),
    [
        ({"inchi": f'"{ETHANOL}"'}, "CCO"),  # as GNPS writes it
        ({"inchi": ETHANOL.removeprefix("InChI=")}, "CCO"),
        ({"inchi": ETHANOL.replace("InChI=", "INCHI = ")}, "CCO"),
        ({"smiles": '"CCO"'}, "CCO"),
        ({"smiles": ETHANOL}, "CCO"),
        ({"inchi": "CCO"}, "CCO"),
        ({"inchi": "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"}, None),
        ({"inchikey": '"lfqscwfljhtthz-uhfffaoysa-n"'}, None),
    ],
)
def test_structures_in_quotes_and_in_the_field_of_another(fields: dict[str, str], smiles: str | None) -> None:
    spectrum, _ = spectrum_of(precursor_mz="47.0491", adduct="[M+H]+", **fields)
    assert (spectrum.smiles, spectrum.inchikey, spectrum.flags) == (smiles, "LFQSCWFLJHTTHZ-UHFFFAOYSA-N", ())


def test_blanks_in_a_formula() -> None:
    spectrum, _ = spectrum_of(precursor_mz="47.0491", adduct="[M+H]+", formula=" C2 H6O ")
    assert spectrum.formula == "C2H6O"


def test_unreadable_structure_keeps_the_spectrum() -> None:
    spectrum, repaired = spectrum_of(
        smiles="C(*)C1=C * = [OH]", inchikey=CAFFEINE_KEY, formula="C8H10N4O2", adduct="[M+H]+"
    )
    assert (spectrum.smiles, spectrum.inchikey, spectrum.formula) == (None, CAFFEINE_KEY, "C8H10N4O2")
    assert spectrum.flags == ("structure-unreadable",)
    assert not repaired
    spectrum, repaired = spectrum_of(smiles="C1CC", inchi="InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3", inchikey="N/A")
    assert spectrum.smiles == "CCO"
    assert repaired == {"structure-from-inchi": 1}
    assert not spectrum.flags


def test_placeholders_are_null() -> None:
    spectrum, repaired = spectrum_of(
        smiles="N/A", inchikey="n/a", formula="NA", name="null", instrument="unknown", usi="-"
    )
    values = (spectrum.smiles, spectrum.inchikey, spectrum.formula, spectrum.name, spectrum.instrument, spectrum.usi)
    assert values == (None,) * 6
    assert not repaired


@pytest.mark.parametrize(
    ("fields", "predicted"),
    [
        ({"predicted": "true"}, True),
        ({"spectrum_type": "predicted"}, True),
        ({"spectrum_type": "in-silico MS2"}, True),
        ({"comment": "predicted spectrum by CFM-ID"}, True),
        ({"comment": "In silico fragmentation of LIPID MAPS"}, True),
        ({"instrument": "CFM-ID 4.4"}, True),
        ({"instrument_type": "in-silico QTOF"}, True),
        ({"comment": "CONFIDENCE Predicted"}, False),
        ({"spectrum_type": "MS2"}, False),
        ({"predicted": "false"}, False),
        ({}, False),
    ],
)
def test_predicted_spectra_are_marked(fields: dict[str, str], predicted: bool) -> None:
    assert spectrum_of(**fields)[0].predicted is predicted


def test_repairs_of_the_reader_count() -> None:
    repaired: Counter[str] = Counter()
    harmonise(record(repairs=("peak-count",), precursor_mz="195,1"), repaired=repaired)
    assert repaired == {"peak-count": 1, "decimal-comma": 1}


@pytest.mark.parametrize(
    ("width", "flags"), [("0.7", ()), ("9", ()), ("25", ("wide-isolation",)), ("-1", ()), ("1e99", ()), ("all", ())]
)
def test_the_centre_of_a_wide_window_is_no_precursor(width: str, flags: tuple[str, ...]) -> None:
    assert spectrum_of(isolation_width=width)[0].flags == flags


def test_one_counter_counts_each_record_once_per_kind() -> None:
    repaired: Counter[str] = Counter()
    for _ in range(3):
        harmonise(record(repairs=("decimal-comma", "decimal-comma"), precursor_mz="195,1"), repaired=repaired)
    harmonise(record(), repaired=repaired)
    assert repaired == {"decimal-comma": 3}


def test_a_record_without_id_is_named_by_its_place() -> None:
    result = harmonise(record(native_id=""))
    assert isinstance(result, Spectrum)
    assert (result.spectrum_id, result.native_id) == ("library.mgf#7", None)


@pytest.mark.parametrize(
    ("fields", "polarity"),
    [
        ({"instrument_type": "LC-ESI+"}, 1),
        ({"instrument_type": "ESI(-)"}, -1),
        ({"instrument": "maXis, negative ion mode"}, -1),
        ({"comment": "FTMS + p ESI d Full ms2 195.09@hcd30.00 [50.00-205.00]"}, 1),
        ({"comment": "FTMS - c ESI d Full ms2 193.07@hcd30.00"}, -1),
        ({"comment": "ion mode: positive; column C18"}, 1),
        ({"comment": "positive mode; also measured in negative mode"}, None),
        ({"comment": "a positive control"}, None),
        ({"instrument_type": "LC-ESI-QTOF"}, None),
        ({"instrument_type": "ESI+", "polarity": "negative"}, -1),
        ({"instrument_type": "ESI+", "adduct": "[M-H]-"}, -1),
        ({"instrument_type": "ESI-", "charge": "2"}, -1),
    ],
)
def test_polarity_from_whatever_says_it(fields: dict[str, str], polarity: int | None) -> None:
    spectrum, _ = spectrum_of(**fields)
    assert spectrum.polarity == polarity
    assert spectrum.charge in (None, -2, -1)


def test_the_first_block_of_an_inchikey() -> None:
    block = CAFFEINE_KEY[:14]
    spectrum, repaired = spectrum_of(inchikey=block)
    assert (spectrum.inchikey, spectrum.inchikey_block) == (block, block)
    spectrum, repaired = spectrum_of(inchikey=block, smiles=CAFFEINE, adduct="[M+H]+")
    assert (spectrum.inchikey, spectrum.flags) == (CAFFEINE_KEY, ())
    assert not repaired
    spectrum, _ = spectrum_of(inchikey="LFQSCWFLJHTTHZ", smiles=CAFFEINE, adduct="[M+H]+")
    assert spectrum.flags == ("inchikey-conflict",)


def test_what_cannot_be_read_is_flagged() -> None:
    spectrum, repaired = spectrum_of(adduct="[M-H]-/[M-Ser]-", polarity="N")
    assert (spectrum.adduct, spectrum.polarity, spectrum.flags) == (None, -1, ("adduct-unreadable",))
    assert dict(repaired) == {"charge-from-adduct-sign": 1}


@given(st.dictionaries(st.sampled_from(FIELDS), st.text(max_size=20)))
def test_no_text_makes_it_raise(fields: dict[str, str]) -> None:
    result = harmonise(record(**fields))
    if isinstance(result, Spectrum):
        assert result.precursor_mz > 0
        assert result.charge is None or result.polarity == (1 if result.charge > 0 else -1)


def test_what_was_mended_is_named_in_the_spectrum_and_counted() -> None:
    repaired: Counter[str] = Counter()
    record = RawRecord(
        "a.mgf", "1", 1, {"precursor_mz": "195,0877", "adduct": "[M+H]+", "charge": "2+"},
        np.array([110.07, 138.07]), np.array([20.0, 100.0]), repairs=("not-utf-8",),
    )  # fmt: skip
    spectrum = harmonise(record, repaired=repaired)
    assert isinstance(spectrum, Spectrum)
    assert set(spectrum.repairs) == set(repaired) >= {"decimal-comma", "not-utf-8"}
