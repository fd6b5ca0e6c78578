"""The table of embeddings: one row per spectrum, and the user's spectra are not written over."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

import ionbed
from ionbed import InputError
from ionbed.embeddings.encode import embed_file
from ionbed.embeddings.index import build
from ionbed.embeddings.kinds import open_index, search
from ionbed.spectra.writers import write_mgf

from .conftest import random_spectrum


@pytest.fixture
def spectra(tmp_path):
    path = tmp_path / "data" / "x.mgf"
    path.parent.mkdir()
    rng = np.random.default_rng(3)
    write_mgf([random_spectrum(rng, name, polarity=1) for name in ("a", "b", "a")], path)
    return path


def test_the_table_has_every_spectrum_in_order(model, spectra, tmp_path):
    assert embed_file(spectra, tmp_path / "e.parquet", model) == 3
    table = pq.read_table(tmp_path / "e.parquet")
    assert table["spectrum_id"].to_pylist() == ["a", "b", "a#2"]
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors, model.embed(ionbed.read(spectra)))
    assert table.schema.metadata[b"model_hash"].decode() == model.model_hash()


def test_the_input_is_never_written_over(model, spectra, tmp_path):
    content = spectra.read_bytes()
    for source, out in ((spectra, spectra), (spectra.parent, spectra), (spectra.parent, spectra.parent / "e.parquet")):
        with pytest.raises(InputError, match="input"):
            embed_file(source, out, model)
    with pytest.raises(InputError, match="holds the input"):
        build(spectra, spectra.parent, model, overwrite=True)
    build(spectra, tmp_path / "index", model)
    kept = {path: path.read_bytes() for path in (tmp_path / "index").iterdir() if path.is_file()}
    for out in (spectra, tmp_path / "index" / "manifest.json", tmp_path / "index" / "new.tsv"):
        with pytest.raises(InputError, match="input"):
            search(open_index(tmp_path / "index", model), spectra, out)
    assert spectra.read_bytes() == content
    assert {path: path.read_bytes() for path in (tmp_path / "index").iterdir() if path.is_file()} == kept
