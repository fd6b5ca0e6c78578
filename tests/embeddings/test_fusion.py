"""The fused score: its arithmetic, its record in a model's configuration, and what makes the record unusable."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ionbed import InputError, load_model
from ionbed.embeddings.consensus import Consensus
from ionbed.embeddings.fusion import EMBEDDING_COSINE, FusedScore, Fusion, fusion_of
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.pair_features import FEATURES

SCORE = FusedScore((EMBEDDING_COSINE, "cosine", f"{EMBEDDING_COSINE} by lower entropy"), (2.0, -1.0, 0.5), 0.25)
PLAIN = FusedScore(("cosine",), (2.0,), 0.0)


def fusion(model_hash: str) -> Fusion:
    other = FusedScore((EMBEDDING_COSINE,), (3.0,), -1.0)
    return Fusion(model_hash, LookupOptions(tolerance_da=0.01), SCORE, other, PLAIN, PLAIN, {"fold": "validation"})


def test_the_score_is_a_logistic_function_of_weighted_terms_and_products() -> None:
    features = np.zeros((2, len(FEATURES)))
    features[:, FEATURES.index("cosine")] = (0.5, 0.0)
    features[:, FEATURES.index("lower entropy")] = (2.0, 7.0)
    total = np.array([0.25 + 2 * 0.8 - 0.5 + 0.5 * 0.8 * 2, 0.25 - 2 * 0.1 - 0.5 * 0.1 * 7])
    np.testing.assert_allclose(SCORE(np.array([0.8, -0.1]), features), 1 / (1 + np.exp(-total)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"terms": ("cosine", "charm", EMBEDDING_COSINE)}, "'charm' is unknown"),
        ({"weights": (1.0,)}, "3 terms have 1 weights"),
        ({"intercept": float("nan")}, "finite"),
    ],
)
def test_a_score_that_cannot_be_worked_out_is_refused(changes, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(SCORE, **changes)


def test_a_model_keeps_its_fused_score_and_its_hash(tmp_path) -> None:
    model = load_model()
    model.config.fusion = None
    assert fusion_of(model) is None
    agreed = Consensus(temperature=0.3, depth=20, own=0.1, support=5.0, intercept=-2.5)
    given, before = replace(fusion(model.model_hash()), consensus=agreed), model.model_hash()
    model.config.fusion = given.to_tree()
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert fusion_of(loaded) == given
    assert loaded.model_hash() == before
    loaded.norm.weight.data += 0.01
    with pytest.raises(InputError, match=r"models.x: its fused score was fitted for other weights .* ionbed fuse"):
        fusion_of(loaded, "models.x")


@pytest.mark.parametrize(
    "damage",
    [{"format": 1}, {"consensus": {"depth": 3}}, {"window": {}}, {"lookups": {"tolerance_da": -1}}, {"open": None}],
)
def test_a_damaged_record_is_told(damage) -> None:
    class Model:
        class config:  # noqa: N801
            fusion = json.loads(json.dumps(fusion("x").to_tree())) | damage

        def model_hash(self) -> str:
            return "x"

    with pytest.raises(InputError, match=r"the model: 'fusion' in its config.json cannot be used .*; fit it again"):
        fusion_of(Model())
