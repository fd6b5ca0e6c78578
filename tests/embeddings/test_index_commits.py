"""Append, delete and compact: an index of several segments finds what one compacted finds, and loses nothing."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ionbed import InputError
from ionbed.embeddings import index as index_module
from ionbed.embeddings.filters import Filters
from ionbed.embeddings.index import Index
from ionbed.spectra.spectrum import Spectrum

from .conftest import CountSketchModel, random_spectrum


def spectra_of(rng: np.random.Generator, count: int, prefix: str) -> list[Spectrum]:
    """Return spectra of few precursors, some of them copies of each other, so that there are ties of both kinds."""
    made = []
    for number in range(count):
        known = {"precursor_mz": 200.0 + int(rng.integers(4)) * 0.001, "polarity": (1, -1, None)[rng.integers(3)]}
        known |= {"license": ("CC0", "CC BY")[rng.integers(2)], "adduct": ("[M+H]+", None)[rng.integers(2)]}
        name = f"{rng.integers(10)}-{prefix}-{number}"
        if made and rng.random() < 0.4:
            copied = made[rng.integers(len(made))]
            made.append(Spectrum(name, mz=copied.mz, intensity=copied.intensity, **known))
        else:
            made.append(random_spectrum(rng, name, **known))
    return made


def ids(index: Index, rows: np.ndarray) -> list[list[str | None]]:
    names = index.metadata["spectrum_id"].to_pylist()
    return [[None if row < 0 else names[row] for row in of_query] for of_query in rows.tolist()]


def assert_same_hits(first: Index, second: Index, queries: list[Spectrum], **options) -> None:
    """Two indexes find the same spectra with the same scores, under whatever row numbers."""
    found, expected = first.search(queries, **options), second.search(queries, **options)
    assert ids(first, found.rows) == ids(second, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.precursor_error_ppm, expected.precursor_error_ppm)
    np.testing.assert_array_equal(found.num_in_window, expected.num_in_window)
    assert list(map(len, found)) == list(map(len, expected))
    for mine, theirs in zip(found, expected, strict=True):
        assert [hit.metadata for hit in mine] == [hit.metadata for hit in theirs]


@pytest.mark.parametrize("seed", range(8))
def test_several_segments_find_what_one_compacted_finds(model, tmp_path, seed):
    rng = np.random.default_rng(seed)
    parts = [spectra_of(rng, int(rng.integers(1, 30)), letter) for letter in "abc"]
    index = Index.build(model, parts[0])
    for part in parts[1:]:
        index.append(part)
    everything = [spectrum for part in parts for spectrum in part]
    gone = {s.spectrum_id for s in everything if rng.random() < 0.3} - {everything[0].spectrum_id}
    if gone:
        assert index.delete(sorted(gone)) == len(gone)
    assert len(index) == len(everything) - len(gone)
    left = [s for s in everything if s.spectrum_id not in gone]
    fresh = Index.build(model, left)
    index.save(tmp_path / "copy")
    queries = [*spectra_of(rng, 5, "q"), *everything[:5]]
    for options in (
        {"k": 3}, {"k": 50}, {"k": 4, "precursor_ppm": None}, {"k": 4, "precursor_da": 0.0015},
        {"k": 5, "filters": Filters(licenses=("CC0",))},
        {"k": 5, "precursor_ppm": None, "filters": Filters(polarity=1, adducts=("[M+H]+",))},
    ):  # fmt: skip
        assert_same_hits(index, fresh, queries, **options)
        assert_same_hits(index, Index.open(tmp_path / "copy", model), queries, **options)
    index.compact()
    assert index.num_rows == len(index) == len(left)
    assert index.metadata["spectrum_id"].equals(fresh.metadata["spectrum_id"])
    np.testing.assert_array_equal(index.vectors[:], fresh.vectors[:])
    for options in ({"k": 4}, {"k": 4, "precursor_ppm": None}):
        assert_same_hits(index, fresh, queries, **options)


def test_an_id_that_is_live_is_refused_by_name_and_replaced_on_request(model, library, tmp_path):
    Index.build(model, library).save(tmp_path / "index")
    index = Index.open(tmp_path / "index", model)
    changed = [Spectrum(s.spectrum_id, 700.0, mz=s.mz, intensity=s.intensity) for s in library[:3]]
    before = (tmp_path / "index/manifest.json").read_bytes()
    with pytest.raises(
        InputError, match=f"spectrum {min(s.spectrum_id for s in library[:3])} already, and 2 more of the new"
    ):
        index.append([*changed, random_spectrum(np.random.default_rng(0), "new")])
    assert (tmp_path / "index/manifest.json").read_bytes() == before
    assert [path.name for path in (tmp_path / "index/segments").iterdir()] == ["1"]
    done = index.append(changed, replace=True)
    assert (done.read, done.kept, done.replaced) == (3, 3, 3)
    opened = Index.open(tmp_path / "index", model)
    assert len(opened) == len(index) == 60 and opened.num_rows == 63
    hits = opened.search([Spectrum("q", 700.0, mz=library[0].mz, intensity=library[0].intensity)], k=60)
    assert {hit.metadata["spectrum_id"] for hit in hits[0]} == {s.spectrum_id for s in changed}
    opened.verify()
    assert opened.manifest["counts"] == {"read": 63, "kept": 63, "dropped": {}, "deleted": 3}
    index.append([random_spectrum(np.random.default_rng(0), "new")])
    index.delete(["new"])
    index.append([random_spectrum(np.random.default_rng(1), "new")])  # one that was deleted can come again
    assert len(index) == 61


def test_spectra_are_deleted_by_id_or_by_what_is_known_of_them(model, library, tmp_path):
    index = Index.build(model, library)
    assert index.delete(where={"polarity": -1}, dry_run=True) == 10 and len(index) == 60
    assert index.delete(where={"polarity": "-1", "license": "CC0"}) == 10 and len(index) == 50
    assert index.delete(where={"polarity": None}) == 10
    assert index.delete(["lib-1-1", "lib-2-2", "lib-1-1"]) == 2
    for wrong, word in (
        (["lib-1-1", "lib-3-3", "nobody"], "no spectrum lib-1-1, nor 1 more"), ({"polarity": "-1"}, "polarity -1"),
        ({"colour": "red"}, "no column 'colour'"), ({"mz": 1}, "no column 'mz'"),
        ({"charge": "two"}, "int8, not 'two'"), ({}, "nothing"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=word):
            index.delete(**({"ids": wrong} if isinstance(wrong, list) else {"where": wrong}))
    with pytest.raises(InputError, match="no spectrum of the index would be left"):
        index.delete(where={"license": "CC0"})
    assert len(index) == 38 and index.info()["spectra"] == 38 and index.info()["deleted_rows"] == 22
    index.compact()
    assert len(index) == index.num_rows == 38


def test_what_was_open_goes_on_while_a_writer_commits(model, library, tmp_path):
    Index.build(model, library).save(tmp_path / "index")
    reader, writer = (Index.open(tmp_path / "index", model) for _ in range(2))
    before = reader.search(library, k=5)
    rng = np.random.default_rng(3)
    writer.append([random_spectrum(rng, f"new-{number}") for number in range(20)])
    writer.delete(["lib-0-0"])
    writer.compact()
    writer.compact()
    assert [path.name for path in (tmp_path / "index/segments").iterdir()] == ["3"]
    after = reader.search(library, k=5)
    np.testing.assert_array_equal(before.rows, after.rows)
    assert [hit.metadata for hit in before[0]] == [hit.metadata for hit in after[0]]
    assert reader.spectra([0])[0].spectrum_id == library_order(library)[0]
    assert reader.refresh() and not reader.refresh()
    assert len(reader) == len(writer) == 79
    assert_same_hits(reader, writer, library)


def library_order(library: list[Spectrum]) -> list[str]:
    return [s.spectrum_id for s in sorted(library, key=lambda s: (s.precursor_mz, s.spectrum_id))]


def test_one_writer_at_a_time_and_with_the_model_of_the_index(model, library, tmp_path):
    from ionbed.artifacts import exclusive

    Index.build(model, library).save(tmp_path / "index")
    index = Index.open(tmp_path / "index", model)
    with exclusive(tmp_path / "index"):
        for write in (index.compact, lambda: index.delete(["lib-0-0"]), lambda: index.append(library[:1])):
            with pytest.raises(InputError, match="another process is writing"):
                write()
    index._model = CountSketchModel(seed=5)
    with pytest.raises(InputError, match="was built with the model"):
        index.append([random_spectrum(np.random.default_rng(0), "new")])


def test_copies_of_an_id_in_what_is_appended_get_a_number(model, library):
    index = Index.build(model, library)
    rng = np.random.default_rng(0)
    index.append([random_spectrum(rng, "x", precursor_mz=200.0 + number) for number in range(2)])
    assert sorted(index.metadata["spectrum_id"].to_pylist())[-2:] == ["x", "x#2"]
    with pytest.raises(InputError, match="spectrum x already"):
        index.append([random_spectrum(rng, "x")])
    with pytest.raises(InputError, match="no spectrum to append"):
        index.append([])


def test_a_further_entry_of_the_manifest_is_kept_through_commits(model, library, tmp_path):
    Index.build(model, library).save(tmp_path / "index")
    index = Index.open(tmp_path / "index", model)
    index.write_entry("calibration", {"slope": 0.5})
    index.delete(["lib-0-0"])
    index.compact()
    assert index.manifest["calibration"] == Index.open(tmp_path / "index").manifest["calibration"] == {"slope": 0.5}
    with pytest.raises(ValueError, match="segments"):
        index.write_entry("segments", [])
    with pytest.raises(InputError, match="save it first"):
        Index.build(model, library).write_entry("calibration", {})


def test_an_index_that_may_only_be_read_is_searched_and_says_so_to_writers(model, library, tmp_path, monkeypatch):
    Index.build(model, library).save(tmp_path / "index")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)  # root may write whatever the modes are
    index = Index.open(tmp_path / "index", model)
    index.verify()
    assert index.search(library[:3], k=1).scores == pytest.approx(1, abs=1e-5)
    for write in (lambda: index.append(library[:1]), lambda: index.delete(["lib-0-0"]), index.compact):
        with pytest.raises(InputError, match="may be read and not written"):
            write()
    assert sorted(tmp_path.rglob("*")) == before


def test_another_commit_right_after_ones_own_is_taken_over_too(model, library, tmp_path, monkeypatch):
    Index.build(model, library[:20]).save(tmp_path / "index")
    mine, other = (Index.open(tmp_path / "index", model) for _ in range(2))
    opened, commits = index_module.open_library, []

    def open_late(place, manifest):
        if not commits:
            commits.append(other)
            other.compact()  # after the manifest was read, and before its segments are opened
        return opened(place, manifest)

    monkeypatch.setattr(index_module, "open_library", open_late)
    assert mine.append(library[20:]).kept == len(library) - 20
    assert len(mine) == len(library) and len(mine.library.segments) == 1
