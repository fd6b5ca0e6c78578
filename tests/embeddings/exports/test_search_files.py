"""`ionbed search` in every format: the very files for a made-up library, and what the command refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import ionbed
from ionbed import InputError, cli
from ionbed.embeddings import kinds
from ionbed.embeddings.exports.formats import MEDIA_TYPES, SUFFIXES, format_of, write
from ionbed.embeddings.exports.search_run import SearchRun
from ionbed.embeddings.index import Index
from ionbed.embeddings.structure_index import StructureIndex
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.molecule_files import NamedStructure
from ionbed.spectra.spectrum import Spectrum

from ..test_structure_index import TowerModel
from .mztab_validator import MzTabM

GOLDEN = Path(__file__).parent / "golden"
FILES = {
    "tsv": "hits.tsv",
    "gnps": "hits.gnps.tsv",
    "mztab": "hits.mztab",
    "jsonl": "hits.jsonl",
    "mgf": "hits.mgf",
    "msp": "hits.msp",
}
QUERIES = """\
BEGIN IONS
TITLE=caffeine?
SCANS=41
PEPMASS=195.0877
CHARGE=1+
RTINSECONDS=92.5
110.0713 40
138.0662 100
END IONS

BEGIN IONS
TITLE=analogue
PEPMASS=195.0880
IONMODE=positive
110.0713 100
138.0662 75
END IONS

BEGIN IONS
TITLE=far
PEPMASS=500.25
CHARGE=2+
60.5 100
END IONS

BEGIN IONS
TITLE=mute
PEPMASS=195.0877
END IONS
"""


class BasePeakModel:
    """Stands in for the encoder: two numbers that any computer rounds alike, by which of two peaks is the higher."""

    def embed(self, spectra, *, progress=False):
        columns = spectra if isinstance(spectra, SpectrumColumns) else SpectrumColumns.from_spectra(list(spectra))
        starts = columns.offsets[:-1]
        is_first = np.asarray(columns.intensity)[starts] == 1.0
        return np.where(is_first[:, None], [0.6, 0.8], [1.0, 0.0]).astype(np.float32)

    def model_hash(self):
        return "0123456789abcdef" * 4


def spectrum(spectrum_id, precursor_mz, peaks, **fields):
    mz, intensity = np.array(peaks, np.float32).T
    return Spectrum(spectrum_id, precursor_mz, mz, intensity / intensity.max(), polarity=1, **fields)


@pytest.fixture(scope="module")
def index():
    caffeine = {
        "name": "Caffeine", "formula": "C8H10N4O2", "smiles": "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "adduct": "[M+H]+",
        "inchikey": "RYYVLZVUVIJVGH-UHFFFAOYSA-N", "charge": 1,
    }  # fmt: skip
    return Index.build(
        BasePeakModel(),
        [
            spectrum("MSBNK-MADEUP-1", 195.0877, [(110.0713, 30), (138.0662, 100)], collision_energy=20.0,
                     instrument_type="LC-ESI-QTOF", license="CC0", **caffeine),
            spectrum("MSBNK-MADEUP-2", 195.0877, [(110.0713, 100), (138.0662, 60)], collision_energy=40.0,
                     instrument_type="LC-ESI-QTOF", license="CC0", predicted=True, **caffeine),
            spectrum("MSBNK-MADEUP-3", 195.0879, [(69.0335, 100), (138.066, 99)], name='3"-O\t"odd" | name',
                     inchikey="AAAAAAAAAAAAAA-UHFFFAOYSA-N"),
        ],
    )  # fmt: skip


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.mgf"
    path.write_text(QUERIES)
    return path


@pytest.fixture
def search(index, monkeypatch):
    """The command, with the made-up index in place of a saved one."""

    def run(*words: object) -> int:
        monkeypatch.setattr(kinds, "open_index", lambda _: index)
        return cli.main(["-q", "search", "library", *map(str, words)])

    return run


def without_what_varies(text: str, folder: Path) -> str:
    return text.replace(folder.as_uri(), "file:///data").replace(f"ionbed {ionbed.__version__}", "ionbed VERSION")


@pytest.mark.parametrize("format", FILES)
def test_the_file_is_the_golden_one(format, search, queries, tmp_path):
    """After a change that is meant: IONBED_WRITE_GOLDEN=1 pytest tests/embeddings/exports, then look at the diff."""
    out = tmp_path / FILES[format]
    words = ["--format", "gnps"] if format == "gnps" else []
    assert search(queries, "--out", out, "--top-k", 3, *words) == 0
    written = without_what_varies(out.read_text(encoding="utf-8"), tmp_path)
    if os.environ.get("IONBED_WRITE_GOLDEN"):
        (GOLDEN / FILES[format]).write_text(written, encoding="utf-8")
    assert written == (GOLDEN / FILES[format]).read_text(encoding="utf-8")


def test_the_mztab_is_valid(search, queries, tmp_path):
    assert search(queries, "--out", tmp_path / "hits.mztab") == 0
    file = MzTabM((tmp_path / "hits.mztab").read_text(encoding="utf-8"))
    assert [row["opt_global_query_id"] for row in file.tables["SMF"]] == ["caffeine?", "analogue", "far"]
    assert file.values["software[1]-setting[1]"] == "k = 10"


def test_a_stated_format_goes_before_the_suffix(search, queries, tmp_path):
    out = tmp_path / "hits.tsv"
    assert search(queries, "--out", out, "--format", "jsonl") == 0
    assert [json.loads(line)["query_id"] for line in out.read_text().splitlines()][-1] == "mute"


def test_a_suffix_that_says_nothing_is_refused(search, queries, tmp_path, capsys):
    assert search(queries, "--out", tmp_path / "hits.xlsx") == 2
    assert "--format" in capsys.readouterr().err
    assert not (tmp_path / "hits.xlsx").exists()


def test_a_format_without_a_file_is_refused(search, queries, capsys):
    assert search(queries, "--format", "mztab") == 2
    assert "--out" in capsys.readouterr().err


def test_nothing_is_half_written(queries, tmp_path):
    def results():
        yield from ()
        raise RuntimeError("killed")

    for format in FILES:
        out = tmp_path / f"hits{SUFFIXES[format]}"
        out.write_text("before")
        with pytest.raises(RuntimeError):
            write(results(), out, format, SearchRun())
        assert out.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"queries.mgf", *(f"hits{s}" for s in SUFFIXES.values())}


def test_the_queries_are_not_overwritten(index, queries):
    with pytest.raises(InputError, match=r"queries\.mgf"):
        kinds.search(index, queries, queries)
    assert queries.read_text() == QUERIES


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.tsv", "tsv"), ("a.mzTab", "mztab"), ("a.JSONL", "jsonl"), ("a.ndjson", "jsonl"), ("a.mgf", "mgf"),
     ("a.msp", "msp"), ("a", "tsv"), ("a.txt", "tsv")],
)  # fmt: skip
def test_a_suffix_says_the_format(name, format):
    assert format_of(name) == format


def test_every_format_has_a_media_type_and_a_suffix():
    assert set(MEDIA_TYPES) == set(SUFFIXES) == set(FILES)


@pytest.mark.parametrize("format", FILES)
def test_an_index_of_structures_writes_every_format(format, queries, tmp_path):
    molecules = [NamedStructure("Caffeine", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", 1, "H1"),
                 NamedStructure("", "Cc1cc(C)c(C(N)=N)c(C)c1O", 2, "H2")]  # fmt: skip
    structures = StructureIndex.build(TowerModel(), molecules)
    out = tmp_path / f"hits{SUFFIXES[format]}"
    summary = kinds.search(structures, queries, out, format=format)
    assert (summary.queries, summary.with_hits) == (4, 2)
    text = out.read_text(encoding="utf-8")
    assert "Caffeine" in text and "H1" in text
    if format == "mztab":
        file = MzTabM(text)
        assert {row["reliability"] for row in file.tables["SML"]} <= {"3", "5"}
        assert "structures" in file.tables["SME"][0]["identification_method"]
    elif format in ("mgf", "msp"):
        assert len(list(ionbed.read(out))) == 3
