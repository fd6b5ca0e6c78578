"""An index of structures with their predicted spectra: what it keeps, what it ranks by, and what it refuses."""

from __future__ import annotations

import csv
import json
import zlib
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ms_entropy import calculate_entropy_similarity

from ionbed import InputError, cli
from ionbed.embeddings import structure_predicted, structure_ranking, structure_spectra
from ionbed.embeddings.kinds import build as build_of_any_kind
from ionbed.embeddings.kinds import formatted_search
from ionbed.embeddings.kinds import search as search_of_any_kind
from ionbed.embeddings.search_options import SearchOptions
from ionbed.embeddings.structure_fusion import (
    PREDICTED_COSINE,
    PREDICTED_ENTROPY,
    STRUCTURE_COSINE,
    StructureFusion,
    StructureScore,
)
from ionbed.embeddings.structure_index import StructureIndex, build
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.molecules import parent_molecule
from ionbed.spectra.preparation import workers
from ionbed.spectra.simulate import simulate_spectra

from .conftest import CountSketchModel

ISOMERS = ("CC(C)CC(N)C(=O)O", "CCC(C)C(N)C(=O)O", "CCCCC(N)C(=O)O", "CCOC(=O)CCNC")
CHARGED_TWICE = "C[N+](C)(C)CC[N+](C)(C)C"
OTHER = "CC(=O)Nc1ccc(O)cc1"
STRUCTURES = [*ISOMERS, CHARGED_TWICE, OTHER]


class PlainModel(CountSketchModel):
    """A model that was not trained with structures; `fusion` is what its configuration carries."""

    def __init__(self, fusion=None, seed: int = 0) -> None:
        super().__init__(seed)
        self.config = SimpleNamespace(fusion=fusion, molecule_tower=0)
        self.num_calls = self.most_at_once = 0

    def embed(self, spectra, *, progress=False):
        self.num_calls += 1
        self.most_at_once = max(self.most_at_once, len(spectra))
        return super().embed(spectra, progress=progress)

    def embed_molecules(self, smiles, *, workers=1, progress=False):
        raise InputError("the model was not trained with structures")


class TowerModel(PlainModel):
    def embed_molecules(self, smiles, *, workers=1, progress=False):
        drawn = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dim) for text in smiles]
        vectors = np.array(drawn, np.float32).reshape(len(smiles), self.dim)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fusion_of(model, terms, weights, **changed):
    score = StructureScore(terms, weights, (0.1, 0.2, 0.3)[: len(terms)], (0.5, 1.0, 2.0)[: len(terms)])
    tree = StructureFusion(model.model_hash(), LookupOptions(), score, {}).to_tree()
    return {"structures": {**tree, **changed}}


ALL = (STRUCTURE_COSINE, PREDICTED_ENTROPY, PREDICTED_COSINE)


@pytest.fixture(scope="module")
def plain() -> PlainModel:
    return PlainModel()


@pytest.fixture(scope="module")
def index(plain) -> StructureIndex:
    return StructureIndex.build(plain, STRUCTURES, predict_spectra=True)


@pytest.fixture(scope="module")
def weighted() -> TowerModel:
    model = TowerModel()
    model.config.fusion = fusion_of(model, ALL, (0.7, 1.5, 0.4))
    return model


@pytest.fixture(scope="module")
def fused(weighted) -> StructureIndex:
    return StructureIndex.build(weighted, STRUCTURES, predict_spectra=True)


@pytest.fixture(scope="module")
def queries():
    """The predicted spectra of the first three isomers, of both polarities, each with a peak of its own."""
    made = []
    for number, smiles in enumerate(ISOMERS[:3]):
        for spectrum in simulate_spectra([("m", smiles)], energies=(20.0,)):
            mz = np.append(spectrum.mz[:-1], np.float32(spectrum.mz[-1] + 0.5))
            made.append(replace(spectrum, spectrum_id=f"{number}{spectrum.polarity:+d}", mz=mz))
    return made


def row_of(index, smiles) -> int:
    """The row of a structure, as the index draws it."""
    return index.metadata["smiles"].to_pylist().index(parent_molecule(smiles).smiles)


def expected_entropy(query, smiles) -> float:
    options = {"ms2_tolerance_in_da": LookupOptions().tolerance_da, "noise_threshold": LookupOptions().noise_cutoff}
    best = 0.0
    for spectrum in simulate_spectra([("m", smiles)]):
        if spectrum.polarity == query.polarity:
            peaks = [
                np.stack([s.mz, s.intensity], axis=1)[s.mz < s.precursor_mz - LookupOptions().remove_precursor_da]
                for s in (query, spectrum)
            ]
            best = max(best, calculate_entropy_similarity(*peaks, **options))
    return best


def expected_cosine(model, query, smiles) -> float:
    spectra = [s for s in simulate_spectra([("m", smiles)]) if s.polarity == query.polarity]
    if not spectra:  # the ester holds no negative charge
        return 0.3  # the centre: nothing is added
    return float((model.embed(spectra) @ model.embed([query])[0]).max())


def test_a_model_without_a_tower_ranks_by_predicted_spectra_alone(index, queries):
    hits = index.search(queries, k=10)
    assert hits.score == "predicted" == index.score_name() and len(index.vectors) == 0 and len(index) == 6
    smiles = index.metadata["smiles"].to_pylist()
    for query, found in zip(queries, hits, strict=True):
        assert {hit.row for hit in found} == {row_of(index, s) for s in ISOMERS}
        assert found[0].row == row_of(index, ISOMERS[int(query.spectrum_id[0])])
        for hit in found:
            assert hit.score == pytest.approx(expected_entropy(query, smiles[hit.row]), abs=2e-3)
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


def test_no_query_is_embedded_to_rank_by_predicted_spectra(index, plain, queries):
    before = plain.num_calls
    index.search(queries, score="predicted")
    assert plain.num_calls == before


def test_the_fused_score_is_the_weighted_sum_of_its_standardised_terms(fused, weighted, queries):
    hits = fused.search(queries, k=10)
    assert hits.score == "fused" and fused.search(queries, score="cosine").score == "cosine"
    smiles = fused.metadata["smiles"].to_pylist()
    for query, found in zip(queries, hits, strict=True):
        assert len(found) == 4
        for hit in found:
            tower = float(weighted.embed_molecules([smiles[hit.row]])[0] @ weighted.embed([query])[0])
            entropy, cosine = (
                expected_entropy(query, smiles[hit.row]),
                expected_cosine(weighted, query, smiles[hit.row]),
            )
            total = 0.7 * (tower - 0.1) / 0.5 + 1.5 * (entropy - 0.2) / 1.0 + 0.4 * (cosine - 0.3) / 2.0
            assert hit.score == pytest.approx(total, abs=5e-3)


def test_a_structure_without_a_prediction_is_ranked_by_what_else_is_known(fused, weighted, queries):
    (query,) = (q for q in queries if q.spectrum_id == "0+1")
    found = {hit.row: hit.score for hit in fused.search([query], k=10, precursor_ppm=None)[0]}
    assert len(found) == 6
    row = row_of(fused, CHARGED_TWICE)
    tower = float(fused.vectors[row] @ weighted.embed([query])[0])
    assert found[row] == pytest.approx(0.7 * (tower - 0.1) / 0.5 + 1.5 * (0 - 0.2), abs=1e-5)
    assert fused.manifest["predicted"] == {"spectra": len(fused.spectra), "structures": 5, "without": 1}


def test_a_term_without_a_weight_is_not_asked_for(queries):
    model = TowerModel()
    model.config.fusion = fusion_of(model, ALL, (1.0, 0.0, 0.0))
    found = StructureIndex.build(model, STRUCTURES, predict_spectra=True)
    by_sum, by_cosine = found.search(queries, k=10), found.search(queries, k=10, score="cosine")
    np.testing.assert_array_equal(by_sum.rows, by_cosine.rows)
    np.testing.assert_allclose(by_sum.scores, (by_cosine.scores - 0.1) / 0.5, atol=1e-5)


def test_a_saved_index_ranks_as_it_did_and_reads_what_it_needs(fused, weighted, queries, tmp_path, monkeypatch):
    monkeypatch.setattr(structure_spectra, "SPECTRA_PER_GROUP", 4)
    fused.save(tmp_path / "index")
    opened = StructureIndex.open(tmp_path / "index", weighted)
    opened.verify()
    assert {"predicted.parquet", "predicted.npy"} <= opened.manifest["files"].keys()
    assert isinstance(opened.spectra.vectors, np.memmap)
    for options in ({}, {"formula": "C6H13NO2"}, {"precursor_ppm": None}, {"score": "predicted"}):
        before, after = (i.search(queries, k=10, **options) for i in (fused, opened))
        np.testing.assert_array_equal(before.rows, after.rows)
        np.testing.assert_array_equal(before.scores, after.scores)
    read = []
    groups = opened.spectra._file.read_row_groups
    monkeypatch.setattr(
        opened.spectra, "_file", SimpleNamespace(read_row_groups=lambda g, **o: read.append(g) or groups(g, **o))
    )
    opened.search(queries, k=10)
    assert 0 < len(read[0]) < len(opened.spectra._group_bounds) - 1
    opened.spectra.__dict__.pop("_file")
    opened.save(tmp_path / "again")
    again = StructureIndex.open(tmp_path / "again", weighted)
    np.testing.assert_array_equal(again.search(queries).scores, opened.search(queries).scores)


def test_an_index_without_a_tower_is_saved_and_opened(index, plain, queries, tmp_path):
    index.save(tmp_path / "index")
    opened = StructureIndex.open(tmp_path / "index", plain)
    assert len(opened) == 6 and len(opened.vectors) == 0 and opened.info()["structures"] == 6
    assert opened.info()["predicted_spectra"]["without"] == 1
    np.testing.assert_array_equal(opened.search(queries).scores, index.search(queries).scores)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    manifest.pop("predicted")
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="differ in number"):
        StructureIndex.open(tmp_path / "index", plain)


def test_nothing_is_shown_unless_asked_for(plain, monkeypatch):
    shown = []
    unseen = structure_predicted.unseen
    for module in (structure_predicted, structure_spectra):
        monkeypatch.setattr(module, "show_progress", lambda *args, **options: shown.append(args[0]) or unseen())
    for progress in (False, True):
        StructureIndex.build(plain, ISOMERS[:1], predict_spectra=True, progress=progress)
        assert shown == ["predicted spectra", "embed predicted spectra"] * progress


def test_the_predicted_spectra_are_embedded_part_by_part(index, monkeypatch):
    monkeypatch.setattr(structure_spectra, "SPECTRA_AT_ONCE", 4)
    model = PlainModel()
    again = StructureIndex.build(model, STRUCTURES, predict_spectra=True)
    assert model.most_at_once == 4 and len(again.spectra) % 4
    np.testing.assert_array_equal(again.spectra.vectors, index.spectra.vectors)


def test_a_dead_worker_promises_nothing_that_a_build_does_not_keep(plain, monkeypatch):
    class DeadPool:
        def __init__(self, *_args, **_options) -> None:
            pass

        def submit(self, *_args):
            raise BrokenProcessPool

        def shutdown(self, **_options) -> None:
            pass

    monkeypatch.setattr(workers, "ProcessPoolExecutor", DeadPool)
    monkeypatch.setattr(structure_predicted, "WORTH_PROCESSES", 1)
    with pytest.raises(RuntimeError, match=r"run again, with fewer --workers$"):
        StructureIndex.build(plain, ISOMERS, predict_spectra=True, workers=2)


def test_the_weights_of_the_model_are_hashed_once_and_not_for_every_search(weighted, queries, monkeypatch):
    index = StructureIndex.build(weighted, ISOMERS[:2], predict_spectra=True)
    hashed = []
    monkeypatch.setattr(
        type(weighted), "model_hash", lambda self: hashed.append(1) or CountSketchModel.model_hash(self)
    )
    for query in queries[:3]:
        assert index.search([query]).score == "fused"
    assert len(hashed) == 1


def test_groups_of_candidates_and_single_ones_rank_alike(fused, queries, monkeypatch):
    whole = fused.search(queries, k=10)
    for number in (1, 5):
        monkeypatch.setattr(structure_ranking, "CANDIDATES_AT_ONCE", number)
        monkeypatch.setattr(structure_ranking, "PAIRS_AT_ONCE", 2)
        parts = fused.search(queries, k=10)
        np.testing.assert_array_equal(parts.rows, whole.rows)
        np.testing.assert_array_equal(parts.scores, whole.scores)
    single = [fused.search([query], k=10).scores[0] for query in queries]
    np.testing.assert_array_equal(np.array(single), whole.scores)


def test_the_spectra_of_a_whole_database_are_never_in_memory_together(fused, queries, monkeypatch):
    whole = fused.search(queries, k=10, precursor_ppm=None)
    monkeypatch.setattr(structure_ranking, "STRUCTURES_AT_ONCE", 2)
    monkeypatch.setattr(structure_ranking, "SPECTRA_KEPT", 5)
    asked = []
    of = fused.spectra.of
    monkeypatch.setattr(fused.spectra, "of", lambda structures: asked.append(structures.tolist()) or of(structures))
    monkeypatch.setattr(fused, "_by_spectra", {})
    parts = fused.search(queries, k=10, precursor_ppm=None)
    assert asked == [[0, 1], [2, 3], [4, 5]]
    np.testing.assert_array_equal(parts.rows, whole.rows)
    np.testing.assert_array_equal(parts.scores, whole.scores)
    assert len(fused._by_spectra["fused"]._cleaner._cleaned) == 5


def test_equal_structures_stand_in_the_order_of_their_rows_and_k_cuts(index, plain, queries):
    far = replace(queries[0], mz=np.array([1000.5], np.float32), intensity=np.ones(1, np.float32))
    hits = index.search([far], k=3)
    assert hits.scores[0].tolist() == [0.0] * 3
    assert hits.rows[0].tolist() == sorted(row_of(index, s) for s in ISOMERS)[:3] and hits.num_candidates[0] == 4
    many = StructureIndex.build(
        plain, ["C" * length + end for length in range(1, 11) for end in "NO"], predict_spectra=True
    )
    assert many.search([far], k=20, precursor_ppm=None).rows[0].tolist() == list(range(20))


def test_a_query_without_candidates_and_no_query_at_all(index, queries):
    nowhere = replace(queries[0], precursor_mz=900.0)
    hits = index.search([nowhere, queries[0]])
    assert not hits[0] and "no structure within 10 ppm" in hits.notes[0] and hits[1]
    assert not index.search([nowhere])[0] and len(index.search([])) == 0
    with pytest.raises(InputError, match="has no peaks"):
        index.search([replace(queries[0], mz=np.empty(0, np.float32), intensity=np.empty(0, np.float32))])


@pytest.mark.parametrize("score", ["predicted", "fused"])
def test_a_score_that_the_index_cannot_give_is_refused(score):
    without = StructureIndex.build(TowerModel(), STRUCTURES)
    assert without.score_name() == "cosine" and without.spectra is None
    with pytest.raises(InputError, match=rf"no predicted spectra .* --predict-spectra, or leave --score {score} out"):
        without.search([], score=score)


def test_a_score_that_there_is_not_is_refused_and_not_replaced(index, fused, queries):
    for found in (index, fused):
        with pytest.raises(InputError, match="the score is 'entropy'; it must be one of cosine, predicted, fused"):
            found.search(queries, score="entropy")


def test_other_refusals(index, plain, weighted, fused, tmp_path):
    with pytest.raises(InputError, match="carries no weights of scores of structures"):
        index.search([], score="fused")
    with pytest.raises(InputError, match="its model embeds no structures; leave --score cosine out"):
        index.search([], score="cosine")
    with pytest.raises(InputError, match="not trained with structures; or rank them by their predicted spectra"):
        StructureIndex.build(plain, STRUCTURES)
    with pytest.raises(InputError, match="no structure can be predicted"):
        StructureIndex.build(plain, [CHARGED_TWICE], predict_spectra=True)
    (tmp_path / "twice.smi").write_text(CHARGED_TWICE)
    with pytest.raises(InputError, match=r"twice\.smi: no structure can be predicted"):
        build(tmp_path / "twice.smi", tmp_path / "twice", plain, predict_spectra=True)
    assert not (tmp_path / "twice").exists()
    changed = PlainModel()
    changed.config.molecule_tower = 8  # its tower reads features of another version
    with pytest.raises(InputError, match=r"not trained with structures$"):
        StructureIndex.build(changed, STRUCTURES, predict_spectra=True)
    library = tmp_path / "library.mgf"
    library.write_text("BEGIN IONS\nTITLE=x\nPEPMASS=200.0\n69.0 1\nEND IONS\n")
    with pytest.raises(InputError, match="leave --predict-spectra out"):
        build_of_any_kind(library, tmp_path / "out", plain, predict_spectra=True)
    of_spectra = build_of_any_kind(library, tmp_path / "out", plain)
    with pytest.raises(InputError, match="not of structures; leave --score predicted out"):
        formatted_search(of_spectra, library, SearchOptions(score="predicted"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 9}, "damaged .*format is 9"),
        ({"score": {"terms": ["x"], "weights": [1], "centre": [0], "scale": [1]}}, "the term 'x' is unknown"),
        ({"lookups": {"x": 1}}, "damaged"),
        ({"model_hash": "0" * 64}, r"fitted for other weights .* fit it again: ionbed fuse --structures"),
    ],
)
def test_weights_that_are_damaged_or_of_another_model_are_refused(index, changed, message):
    model = PlainModel()
    model.config.fusion = fusion_of(model, ALL[1:], (1.0, 1.0), **changed)
    other = StructureIndex.build(model, ISOMERS, predict_spectra=True)
    with pytest.raises(InputError, match=message):
        other.search([])
    assert other.search([], score="predicted").score == "predicted"


def test_damage_on_disk_is_noticed(index, plain, queries, tmp_path, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.index_folder.SMALL_FILE", 0)  # as with files of many structures
    index.save(tmp_path / "index")
    for name, change, message in (
        ("predicted.npy", lambda data: b"\x00" * len(data), r"predicted\.npy: is damaged"),
        ("predicted.npy", lambda data: data.replace(b"<f2", b"<i2"), "not those of its structures"),
        ("predicted.parquet", lambda data: b"\x00" * len(data), r"predicted\.parquet: is damaged"),
        ("metadata.parquet", lambda data: b"\x00" * len(data), r"metadata\.parquet: is damaged"),
        ("vectors.faiss", lambda data: b"\x00" * len(data), r"vectors\.faiss: is damaged"),
    ):
        file = tmp_path / "index" / name
        whole = file.read_bytes()
        file.write_bytes(change(whole))
        with pytest.raises(InputError, match=message):
            StructureIndex.open(tmp_path / "index", plain)
        file.write_bytes(whole)
    file = tmp_path / "index" / "predicted.parquet"
    opened = StructureIndex.open(tmp_path / "index", plain)
    column = opened.spectra._file.metadata.row_group(0).column(0)  # m/z
    whole = file.read_bytes()
    for place in range(column.data_page_offset + column.total_compressed_size // 2, len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            pq.read_table(file)
        except (OSError, pa.ArrowException):
            continue
        break  # what reads as other numbers, and only the checksum tells
    with pytest.raises(InputError, match=r"predicted\.parquet: is damaged"):
        StructureIndex.open(tmp_path / "index", plain).search(queries, precursor_ppm=None)


def test_the_table_says_what_its_scores_are(fused, weighted, tmp_path):
    (tmp_path / "molecules.smi").write_text("\n".join(STRUCTURES))
    queries = tmp_path / "queries.mgf"
    queries.write_text(
        "BEGIN IONS\nTITLE=a\nPEPMASS=132.1019\nADDUCT=[M+H]+\n86.096 100\n44.05 20\nEND IONS\n"
        "BEGIN IONS\nTITLE=none\nPEPMASS=900.0\nADDUCT=[M+H]+\n86.096 100\nEND IONS\n"
    )
    index = build(tmp_path / "molecules.smi", tmp_path / "index", weighted, predict_spectra=True)
    assert index.folder is not None and index.spectra is not None
    for score in (None, "cosine", "predicted"):
        search_of_any_kind(index, queries, tmp_path / "hits.tsv", SearchOptions(score=score))
        with open(tmp_path / "hits.tsv", encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, dialect="excel-tab"))
        assert len(rows) == 5 and {row["score_name"] for row in rows} == {score or "fused"}


def test_the_commands_rank_by_predicted_spectra_with_any_model(tmp_path, capsys):
    torch.manual_seed(0)
    IonbedModel(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4)).save_pretrained(tmp_path / "model")
    (tmp_path / "m.smi").write_text("\n".join(STRUCTURES))
    (tmp_path / "q.mgf").write_text("BEGIN IONS\nTITLE=a\nPEPMASS=132.1019\nADDUCT=[M+H]+\n86.096 100\nEND IONS\n")
    folder, queries = str(tmp_path / "index"), str(tmp_path / "q.mgf")
    words = ["index", "build", str(tmp_path / "m.smi"), "--out", folder, "--model", str(tmp_path / "model")]
    assert cli.main([*words, "--workers", "1"]) == 2
    assert "rank them by their predicted spectra: --predict-spectra" in capsys.readouterr().err
    assert cli.main([*words, "--workers", "1", "--predict-spectra"]) == 0
    told = capsys.readouterr().err
    assert "6 structures" in told and "predicted spectra; 1 structure without" in told
    assert cli.main(["index", "info", folder]) == 0
    assert "predicted spectra" in capsys.readouterr().out
    for options in ([], ["--score", "predicted"]):
        assert cli.main(["search", folder, queries, *options]) == 0
        assert "by predicted spectra" in capsys.readouterr().out
    for options, told in (("cosine", "embeds no structures"), ("fused", "ionbed fuse --structures")):
        assert cli.main(["search", folder, queries, "--score", options]) == 2
        assert told in " ".join(capsys.readouterr().err.split())
