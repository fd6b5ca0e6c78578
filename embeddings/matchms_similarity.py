"""The cosine of two embeddings as a similarity of matchms, for its scores, networks and pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spectra.matchms_spectra import import_matchms

if TYPE_CHECKING:
    from .index_folder import Embedder
    from .matchms_scores import EmbeddingCosine


def as_matchms_similarity(model: Embedder, *, min_score: float | None = None) -> EmbeddingCosine:
    """Return a similarity for `matchms.calculate_scores`: the cosine of the embeddings of two spectra.

    Parameters
    ----------
    model : IonbedModel
    min_score : float, optional
        Lower scores are not kept by ``array_type="sparse"``, so that many spectra can be compared without a full
        table; by default all are. matchms itself takes a score of exactly 0 for none.

    Raises
    ------
    InputError
        matchms is not installed.
    """
    import_matchms()
    from .matchms_scores import EmbeddingCosine

    return EmbeddingCosine(model, min_score=min_score)
