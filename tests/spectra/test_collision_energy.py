"""Collision energies: every shape that contributors write, by instrument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.collision_energy import collision_energy_in_ev

MZ = 250.0  # so that NCE 30 is 15 eV at one charge
QTOF = {"instrument_type": "LC-ESI-QTOF"}
ORBITRAP = {"instrument_type": "LC-ESI-QFT", "activation": "HCD"}
HYBRID_HCD = {"instrument_type": "LC-ESI-ITFT", "activation": "HCD"}
HYBRID_CID = {"instrument_type": "LC-ESI-ITFT", "activation": "CID"}
TRAP = {"instrument_type": "LC-ESI-IT"}


@pytest.mark.parametrize(
    ("text", "instrument", "expected"),
    [
        ("35 eV", QTOF, 35), ("35eV", QTOF, 35), ("20 ev", QTOF, 20), ("10.0 eV", QTOF, 10), ("6V", QTOF, 6),
        ("20 V", {"instrument_type": "LC-ESI-QQ"}, 20), ("0 eV", QTOF, 0), ("35 eV", {}, 35), ("35 eV", ORBITRAP, 35),
        ("40", QTOF, 40), ("-20", {"instrument_type": "LC-ESI-QQ"}, 20), ("30-50", QTOF, 40),
        ("30", ORBITRAP, 15), ("30", {"instrument": "Q Exactive Plus"}, 15), ("30", HYBRID_HCD, 15), ("0", ORBITRAP, 0),
        ("15 % (nominal)", ORBITRAP, 7.5), ("30(NCE)", ORBITRAP, 15), ("30 NCE", {}, 15), ("30.0 NCE", ORBITRAP, 15),
        ("30% (nominal)", HYBRID_HCD, 15), ("30 (nominal)", ORBITRAP, 15), ("CE45", ORBITRAP, 22.5),
        ("HCD 30%", {}, 15),
        ("HCD (NCE 20-30-40%)", {}, 15), ("[20.0, 30.0, 60.0, 40.0]", ORBITRAP, 18.75),
        ("42% (nominal) with stepped collision energies 30% and 55%", ORBITRAP, 21),
        ("Ramp 5-60 V", QTOF, 32.5), ("RAMP 21.6-32.4 eV", QTOF, 27), ("Ramp 22,9-34.3 eV", QTOF, 28.6),
        ("Ramp 20%-70% (nominal)", ORBITRAP, 22.5), ("6->10V", QTOF, 8), ("20,40,60 (stepped)", QTOF, 40),
        ("20/40 eV", QTOF, 30), ("35,5 eV", QTOF, 35.5), ("10 to 30 eV", QTOF, 20),
        ("NCE=35% 28eV", ORBITRAP, 28), ("NCE=25% 9eV", {}, 9), ("NCE=35%", ORBITRAP, 17.5),
        ("35 (NCE) 20 eV", ORBITRAP, 20), ("HCD 30", ORBITRAP, 15), ("65HCD", {}, 32.5), ("CE 20", QTOF, 20),
        ("CE=20V", QTOF, 20),
        ("CID; 35.0", QTOF, 35),
        ("10 20 40", QTOF, 70 / 3), ("stepped 20,35,50", QTOF, 35), ("20;30;40", QTOF, 30), ("20-35-50", QTOF, 35),
        ("stepped NCE 20/40/60", ORBITRAP, 20), ("20eV, 40eV", QTOF, 30), ("ramp 20-40", QTOF, 30),
        ("35±15 eV", QTOF, 35), ("35 +/- 15", QTOF, 35), ("CE 35 CES 15", QTOF, 35),
        ("30 (NCE)", {"instrument": "Q Exactive", "activation": "CID"}, 15),  # it has no trap
        ("30 (NCE)", {"instrument": "Orbitrap Fusion Lumos", "activation": "HCD"}, 15),
        ("30 %", {"instrument": "Orbitrap", "activation": "beam-type collision-induced dissociation"}, 15),
    ],
)  # fmt: skip
def test_energy_in_ev(text: str, instrument: dict[str, str], expected: float) -> None:
    assert collision_energy_in_ev(text, precursor_mz=MZ, charge=1, **instrument) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "instrument"),
    [
        (None, QTOF), ("", QTOF), ("n.d.", QTOF), ("ceV", QTOF), ("SORI CID", QTOF), ("3 kV", QTOF), ("20 keV", QTOF),
        ("40", {}), ("15, 30, 45, 60, 70 or 90 (nominal)", ORBITRAP),
        ("160-0.41mz or 15 (mz>350) nominal units", ORBITRAP),
        ("scaled 80 (m/z=200) to 110 (m/z=120)", ORBITRAP), ("scaled by m/z", ORBITRAP), ("80 % by Ar 50 %", ORBITRAP),
        ("Ramp 17.2-25.8 eV 30 eV", QTOF), ("0.5 kV", QTOF), ("30 NCE 20", ORBITRAP), ("eV", QTOF), ("NCE", ORBITRAP),
        ("low", QTOF), ("high energy", QTOF), ("30 eV NCE", ORBITRAP),
        ("200-500-650 (Argon)", QTOF), ("30%", QTOF), ("30 % or eV", QTOF),
        ("35 % (nominal)", HYBRID_CID), ("35eV", HYBRID_CID), ("30%", {"instrument_type": "LC-ESI-ITFT"}),
        ("0.70", TRAP), ("0.60/0.55", TRAP), ("35%", {"instrument_type": "LC-ESI-QIT"}),
        ("120 %", {"instrument_type": "LC-ESI-ITTOF"}),
        ("35 (NCE)", {"instrument": "Orbitrap Fusion Lumos", "activation": "CID"}),  # in its trap
        ("35", {"instrument": "Orbitrap ID-X", "activation": "trap-type CID"}),
    ],
)  # fmt: skip
def test_unknown_energy_is_none(text: str | None, instrument: dict[str, str]) -> None:
    assert collision_energy_in_ev(text, precursor_mz=MZ, charge=1, **instrument) is None


@pytest.mark.parametrize(
    ("charge", "factor"), [(None, 1), (1, 1), (-1, 1), (2, 0.9), (-2, 0.9), (3, 0.85), (4, 0.8), (5, 0.75), (9, 0.75)]
)
def test_normalised_energy_follows_mass_and_charge(charge: int | None, factor: float) -> None:
    energy = collision_energy_in_ev("30 NCE", precursor_mz=600.0, charge=charge, instrument_type="LC-ESI-QFT")
    assert energy == pytest.approx(36 * factor)


@given(st.text(alphabet="0123456789.,-/%()eVkNC rampto>", max_size=24))
def test_any_text_gives_a_number_or_none(text: str) -> None:
    energy = collision_energy_in_ev(text, precursor_mz=MZ, instrument_type="LC-ESI-QTOF")
    assert energy is None or energy >= 0
