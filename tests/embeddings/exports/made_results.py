"""Made-up results of searches, with any text in names and anything missing."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ionbed.embeddings.hit_table import QueryResult
from ionbed.embeddings.search import HitRow
from ionbed.spectra.spectrum import Spectrum

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "null", "a\tb\r\nc", "[x, y]", "5'-AMP \"salt\"", "C|C", "END IONS", "BEGIN IONS", "Num Peaks: 3", "=1+1",
         "level 2a: probable", "NAME=x", "β-D-glucose", "a,b;c", "\x00\x1f\x85", "#", "|"]
    ),
)  # fmt: skip
MAYBE_TEXT = st.none() | TEXTS
NUMBERS = st.none() | st.floats(-1e6, 1e6) | st.just(float("nan"))


@st.composite
def spectra(draw: st.DrawFn) -> Spectrum:
    mz = sorted(set(draw(st.lists(st.integers(5000, 90000), min_size=1, max_size=5))))
    return Spectrum(
        spectrum_id=draw(TEXTS),
        precursor_mz=draw(st.floats(50, 2000)),
        mz=np.array(mz, np.float32) / 100,
        intensity=np.linspace(0.1, 1, len(mz), dtype=np.float32) if len(mz) > 1 else np.ones(1, np.float32),
        source_file=draw(MAYBE_TEXT | st.sampled_from(["a.mgf", "b.mzML", "c.tar.gz!d e.msp"])),
        native_id=draw(MAYBE_TEXT | st.just("controllerType=0 controllerNumber=1 scan=7")),
        charge=draw(st.sampled_from([None, 1, -1, 2])),
        polarity=draw(st.sampled_from([None, 1, -1])),
        adduct=draw(st.sampled_from([None, "[M+H]+", "[2M+Na]+", "[M-H]-", "nonsense"])),
        retention_time=draw(st.none() | st.floats(0, 1e4)),
        collision_energy=draw(st.none() | st.floats(0, 200)),
        name=draw(MAYBE_TEXT),
    )


@st.composite
def results(draw: st.DrawFn) -> list[QueryResult[HitRow]]:
    """Of a few queries: some that cannot be used, some without a hit, some with hits of which anything is missing."""
    made = []
    for number in range(draw(st.integers(0, 4))):
        query_id, note = f"{draw(TEXTS)}#{number}", draw(TEXTS)
        spectrum = draw(st.none() | spectra())
        mz = None if spectrum is None else spectrum.precursor_mz
        rows = [HitRow(query_id, mz, note=note)]
        if spectrum is not None and (count := draw(st.integers(0, 3))):
            rows = [
                HitRow(
                    query_id, mz, rank + 1, draw(st.floats(-1, 1)),
                    probability=draw(st.none() | st.floats(0, 1)),
                    precursor_error_ppm=draw(st.none() | st.floats(-5e5, 1e6)),
                    mass_difference=draw(NUMBERS), difference_formula=draw(TEXTS),
                    matched_peaks=draw(st.none() | st.integers(0, 99)), name=draw(MAYBE_TEXT), formula=draw(MAYBE_TEXT),
                    smiles=draw(MAYBE_TEXT), inchikey=draw(MAYBE_TEXT), library_id=draw(MAYBE_TEXT),
                    adduct=draw(st.none() | TEXTS | st.sampled_from(["[M+H]+", "[M+2H]2+"])),
                    collision_energy=draw(NUMBERS), instrument_type=draw(MAYBE_TEXT), license=draw(MAYBE_TEXT),
                    predicted=draw(st.sampled_from([None, True, False])), confidence=draw(TEXTS), warnings=draw(TEXTS),
                    note=note, row=draw(st.none() | st.integers(0, 9)),
                )
                for rank in range(count)
            ]  # fmt: skip
        made.append(QueryResult(query_id, spectrum, rows, draw(st.none() | st.integers(1, 99))))
    return made
