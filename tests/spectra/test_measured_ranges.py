"""What a model was trained on, as ranges, and the spectra that lie outside of them."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.measured_ranges import measured_ranges, outside_of, united
from ionbed.spectra.spectrum import Spectrum


def spectrum(precursor_mz, polarity, charge, peaks):
    mz = np.linspace(50, 60, peaks).astype(np.float32)
    return Spectrum("s", precursor_mz, mz=mz, intensity=np.ones(peaks, np.float32), polarity=polarity, charge=charge)


spectra = st.lists(
    st.builds(
        spectrum, st.floats(60, 2000), st.sampled_from([1, -1, None]), st.sampled_from([1, -1, 2, None]),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=20,
)  # fmt: skip


def ranges_of(columns):
    return measured_ranges(columns.precursor_mz, columns.polarity, columns.charge, columns.num_peaks)


@given(spectra)
def test_no_spectrum_lies_outside_of_its_own_kind(made):
    columns = SpectrumColumns.from_spectra(made)
    ranges = json.loads(json.dumps(ranges_of(columns)))
    wide = {**ranges, "precursor_mz": [columns.precursor_mz.min(), columns.precursor_mz.max()]}
    assert outside_of(columns, wide) == [[] for _ in made]
    assert outside_of(columns, {}) == [[] for _ in made]


@given(spectra, spectra)
def test_ranges_of_two_stages_hold_what_either_holds(first, second):
    both = [ranges_of(SpectrumColumns.from_spectra(made)) for made in (first, second)]
    for made in (first, second):
        columns = SpectrumColumns.from_spectra(made)
        together, alone = outside_of(columns, united(both)), outside_of(columns, both[0])
        assert all(len(a) <= len(b) for a, b in zip(together, alone, strict=True))


def test_what_is_said_of_an_odd_spectrum():
    columns = SpectrumColumns.from_spectra([spectrum(100.0 + place, 1, 1, 3 + place % 50) for place in range(1000)])
    ranges = ranges_of(columns)
    assert ranges["charges"] == {"+1": 1.0} and ranges["peaks"] == [3, 52]
    odd = SpectrumColumns.from_spectra(
        [
            spectrum(500.0, 1, 1, 3),
            spectrum(1500.0, -1, -2, 2),
            spectrum(500.0, None, None, 90),
            spectrum(90.0, 1, 1, 9),
        ]
    )
    assert outside_of(odd, ranges) == [
        [],
        [
            "polarity negative: the model was trained on hardly any such spectrum",
            "charge -2: the model was trained on hardly any such spectrum",
            "m/z 1500.0000: the model was trained on 100.999 to 1098",
            "2 peaks: the model was trained on 3 or more",
        ],
        [],
        ["m/z 90.0000: the model was trained on 100.999 to 1098"],
    ]
