"""The small store of all tests as columns with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.store import Store


@pytest.fixture(scope="session")
def make_columns(store: Path) -> tuple[SpectrumColumns, np.ndarray, np.ndarray]:
    table = Store(store).table()
    labels = (np.array(table[name].to_pylist(), object) for name in ("inchikey", "smiles"))
    return (SpectrumColumns.from_table(table), *labels)
