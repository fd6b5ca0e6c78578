"""Embeddings in two dimensions: principal components, or UMAP on their cosine."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import numpy as np

from ..errors import InputError

Method = Literal["umap", "pca", "densmap"]

UMAP_NEIGHBOURS = 15
FEWEST_FOR_UMAP = UMAP_NEIGHBOURS + 2
"""UMAP's first layout, and its neighbours, need as many."""

UMAP_MIN_DISTANCE = 0.1


def check_method(method: str, count: int | None = None) -> None:
    """Raise `InputError` if a method is unknown, not installed, or cannot be used for ``count`` spectra."""
    import importlib.util

    if method not in get_args(Method):
        raise InputError(f"the method is '{method}'; it must be one of {', '.join(get_args(Method))}")
    if method == "pca":
        return
    if importlib.util.find_spec("umap") is None:
        raise InputError(
            f"the method {method} needs umap-learn; install it with: pip install 'ionbed[maps]', or choose --method pca"
        )
    if count is not None and count < FEWEST_FOR_UMAP:
        raise InputError(
            f"{count} spectra are too few for {method}, which needs {FEWEST_FOR_UMAP}; choose --method pca"
        )


def project(vectors: np.ndarray, method: Method, seed: int = 0) -> np.ndarray:
    """Return two coordinates of each vector.

    Parameters
    ----------
    vectors : float32 array of shape (n, dim)
        Rows of unit length.
    method : 'umap', 'pca' or 'densmap'
        UMAP (McInnes, Healy & Melville, arXiv 1802.03426) on the cosine, with 15 neighbours and a least distance of
        0.1; principal components; or UMAP that also keeps how dense a place is (Narayan et al., Nat Biotechnol 2021).
    seed : int
        Of UMAP's random numbers. One seed gives one map, on one machine and version of umap-learn.

    Returns
    -------
    float32 array of shape (n, 2)

    Raises
    ------
    InputError
        umap-learn is not installed, or there are too few vectors for it.
    """
    check_method(method, len(vectors))
    if method == "pca":
        return _principal_components(vectors)
    import umap

    reducer = umap.UMAP(
        n_neighbors=UMAP_NEIGHBOURS,
        min_dist=UMAP_MIN_DISTANCE,
        metric="cosine",
        random_state=seed,
        n_jobs=1,  # what a seed allows; said here, or UMAP warns that it says so itself
        densmap=method == "densmap",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups that hang together with nothing else: a map of them is wanted, too
        coordinates = reducer.fit_transform(np.ascontiguousarray(vectors, np.float32))
    return np.asarray(coordinates, np.float32)


def _principal_components(vectors: np.ndarray) -> np.ndarray:
    """Return the first two principal components, each turned so that its largest weight is positive."""
    if not len(vectors):
        return np.empty((0, 2), np.float32)
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((vectors.shape[1], vectors.shape[1]))
    for begin in range(0, len(vectors), 1 << 14):
        centred = vectors[begin : begin + (1 << 14)] - mean
        covariance += centred.T @ centred
    _, axes = np.linalg.eigh(covariance)
    axes = axes[:, ::-1][:, :2]
    if axes.shape[1] < 2:
        axes = np.column_stack([axes, np.zeros(len(axes))])
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(2)] < 0, -1.0, 1.0)
    coordinates = np.empty((len(vectors), 2), np.float32)
    for begin in range(0, len(vectors), 1 << 14):
        coordinates[begin : begin + (1 << 14)] = (vectors[begin : begin + (1 << 14)] - mean) @ axes
    return coordinates
