"""Compiled functions where their code can be kept, and where no folder can be written to."""

from __future__ import annotations

import numpy as np
import pytest

from ionbed.spectra import compiling


def doubled(number: float) -> float:
    return 2 * number


@pytest.mark.parametrize("signature", [None, "float64(float64)"])
def test_where_no_folder_can_be_written_to_code_is_compiled_and_not_kept(monkeypatch, caplog, signature) -> None:
    def read_only(self) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr("numba.core.caching._CacheLocator.ensure_cache_path", read_only)
    compiling._tell_that_nothing_is_kept.cache_clear()
    for _ in range(2):
        assert compiling.compiled(doubled, signature)(np.float64(3)) == 6
    assert caplog.text.count("NUMBA_CACHE_DIR") == 1
