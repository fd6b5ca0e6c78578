"""A left-out laboratory: its queries, the others' library, and a training fold without its molecules."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.comparisons import ANALOGUE_SEARCH, LIBRARY_SEARCH
from ionbed.evaluation.dataset import load_evaluation_data
from ionbed.evaluation.question import ask
from ionbed.evaluation.run import EvaluationConfig
from ionbed.finetune.splits import SplitOptions, split_store
from ionbed.spectra.split import EXCLUDED, Split
from ionbed.spectra.store import Store


@pytest.mark.parametrize("molecules", ["held-out", "shared"])
def test_queries_are_of_the_left_out_laboratory_and_their_library_of_the_others(
    build: SimpleNamespace, tmp_path, molecules
) -> None:
    """Half of the molecules were measured in both laboratories, half in Alpha alone."""
    spectra, _ = build.isomers(24)
    spectra = [s for s in spectra if s.laboratory == "Alpha" or int(s.spectrum_id.split("-")[0]) % 2]
    store = build.write_store(tmp_path / "store", spectra)
    options = SplitOptions("laboratory", hold_out=("Beta",), molecules=molecules, validation=0.0)
    split_store(store, tmp_path / "split.json", options)
    split = Split.load(tmp_path / "split.json")
    data = load_evaluation_data(Store(store), split)
    laboratory = np.array(data.table["laboratory"].to_pylist())
    tested, trained = data.rows_in("test"), data.rows_in("train")
    assert set(laboratory[tested]) == {"Beta"} and len(tested) == np.sum(laboratory == "Beta")
    assert set(laboratory[trained]) == {"Alpha"}
    both = np.intersect1d(data.molecule[tested], data.molecule[trained])
    assert len(both) == (12 if molecules == "shared" else 0)
    left_out = data.rows_in(EXCLUDED)
    assert set(data.molecule[left_out]) <= set(data.molecule[tested])

    config = EvaluationConfig(dataset=store, split=tmp_path / "split.json")
    question = ask(LIBRARY_SEARCH, data, candidate_molecules(data), config)
    assert question is not None
    assert set(laboratory[question.found.queries]) == {"Beta"}
    assert set(laboratory[question.found.candidate]) == {"Alpha"}
    task = question.task
    for query, pool in enumerate(task.query_pool):  # what was never trained on can be found all the same
        assert task.query_molecule[query] in task.candidate_molecule[task.candidate_pool == pool]
    if molecules == "held-out":  # of a split that shares molecules it is not asked
        analogues = ask(ANALOGUE_SEARCH, data, candidate_molecules(data), config)
        assert analogues is not None and np.isin(analogues.found.candidate, trained).all()
