"""What ``ionbed index info`` says of an index besides what it holds: how hits are scored and how probable they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..progress import counted
from .calibration import NO_PROBABILITIES, Calibration
from .fusion import FusedScore, fusion_of
from .milvus_index import is_in_milvus


def scores_told(model: object, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the scores by which an index can be searched, with the weights of the fused ones, in words by name."""
    told = {"score_cosine": "inner product of the embeddings, from -1 to 1"}
    if is_in_milvus(manifest):
        return {**told, "score_fused": "none: a library in Milvus is searched by the embeddings alone"}
    try:
        fusion = fusion_of(model, "the model of the index")
    except InputError as error:
        return {**told, "score_fused": f"none: {error}"}
    if fusion is None:
        return {**told, "score_fused": "none: the model carries no weights (ionbed fuse fits them)"}
    told["score_fused_within_a_window"] = _weights(fusion.window)
    told["score_fused_open"] = _weights(fusion.open)
    if fusion.consensus is not None:
        told["score_fused_open"] += f"; then by the consensus of the best {fusion.consensus.depth} molecules"
    return told


_LABORATORIES = {
    "other": "of another laboratory",
    "any": "of any laboratory (too high across laboratories: no level 2a)",
    "own": "as these queries find them",
}


def calibration_told(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return how an index's probabilities were fitted and how well they held, in words by way of searching."""
    tree = manifest.get("calibration")
    if tree is None:
        reason = "they are not fitted to a library in Milvus" if is_in_milvus(manifest) else NO_PROBABILITIES
        return {"probabilities": f"none: {reason}"}
    calibration = Calibration.from_tree(tree)
    record = calibration.record
    source = "library spectra as queries" if record["from"] == "library" else record["from"]
    told = {
        "probabilities": f"fitted {record['made']} to {source}; model trained on these molecules: "
        f"{record['trained_on']}; half of the queries' molecules in the library, which then had "
        f"{counted(record['library_spectra'], 'spectra')}"
    }
    for name, curve in calibration.curves.items():
        of, held_out = curve.record, curve.record["held_out"]
        laboratory = _LABORATORIES[of["laboratories"]]
        told[name] = (
            f"{counted(of['queries'], 'queries')}, {counted(of['molecules'], 'molecules')}, hits {laboratory}; on "
            f"molecules left out of the fit: Brier score {held_out['brier']:.3f} "
            f"(base rate alone: {held_out['brier_of_base_rate']:.3f}), calibration error {held_out['ece']:.3f}"
        )
    return told


def _weights(score: FusedScore) -> str:
    terms = ", ".join(
        f"{weight:+.3g} {term}" for term, weight in zip(score.terms, score.weights, strict=True) if weight
    )
    return f"logistic function of {score.intercept:+.3g}, {terms}"
