"""What pyteomics and matchms read of the real library files, beside ionbed: where they differ, and why."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ionbed.spectra.readers import read_records

DATA = os.environ.get("IONBED_DATA", "")
FILES = sorted(Path(DATA).glob("libraries/*.m[gs][fp]")) if DATA else []

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA, reason="IONBED_DATA does not name the folder of real data"),
]


def peaks_of(spectra: Any) -> list[np.ndarray]:
    return [np.column_stack([s.peaks.mz, s.peaks.intensities]) for s in spectra]


def sorted_peaks(mz: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    order = np.argsort(mz, kind="stable")
    return np.column_stack([mz[order], intensity[order]])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_matchms_reads_the_same_peaks(path: Path) -> None:
    """matchms does not look at the MS level: survey spectra, whose peaks are left out here, are spectra to it."""
    importing = pytest.importorskip("matchms.importing")
    load = importing.load_from_mgf if path.suffix == ".mgf" else importing.load_from_msp
    theirs = peaks_of(load(str(path)))
    ours = [sorted_peaks(r.mz, r.intensity) for r in read_records(path, ms_levels=range(1, 100))]
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".mgf"], ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore:IndexedMGF")
def test_pyteomics_reads_the_same_peaks_unless_it_wants_titles(path: Path) -> None:
    """Its indexed reader, the default of `mgf.read`, finds spectra by TITLE, which GNPS and mzmine do not write."""
    mgf = pytest.importorskip("pyteomics.mgf")
    ours = [np.column_stack([r.mz, r.intensity]) for r in read_records(path, ms_levels=range(1, 100))]
    with mgf.MGF(str(path)) as spectra:
        theirs = [np.column_stack([s["m/z array"], s["intensity array"]]) for s in spectra]
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not re.search("^TITLE=", path.read_text(encoding="utf-8"), re.MULTILINE)
    with mgf.read(str(path)) as indexed:
        assert len(indexed) == 0
