"""What is known of a query spectrum and of its molecule: numbers and classes by which queries are told apart."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from ..spectra.columns import SpectrumColumns
from ..spectra.molecules import tanimoto_matrix
from .dataset import EvaluationData

PRECURSOR_DA, PRECURSOR_PPM = 0.01, 20.0
"""A peak this near to the precursor m/z (the wider of the two) is the precursor that survived."""

CHEMONT_LEVELS = ("kingdom", "superclass", "class")
"""The first levels of ChemOnt (Djoumbou Feunang et al., J. Cheminform. 8 (2016) 61), in the order of a class path."""

MOLECULES_PER_CHUNK = 256


def spectral_entropy(columns: SpectrumColumns, rows: np.ndarray) -> np.ndarray:
    """Return the spectral entropy of spectra: 0 where one peak holds all, ln(n) where n peaks are equally high.

    -sum(p ln p), where p is a peak's share of the summed intensity; not weighted (Li et al., Nat. Methods 18 (2021)
    1524-1531).

    Parameters
    ----------
    rows : int64 array of shape (n,)

    Returns
    -------
    float64 array of shape (n,)
        NaN for a spectrum without intensity.
    """
    taken = columns.take(rows)
    spectrum, _ = taken.peak_places()
    intensity = taken.intensity.astype(np.float64)
    total = np.bincount(spectrum, intensity, len(taken))
    share = intensity / total[spectrum]
    terms = -share * np.log(np.where(share > 0, share, 1.0))
    entropy = np.bincount(spectrum, terms, len(taken))
    return np.where(total > 0, entropy, np.nan)


def precursor_survival(columns: SpectrumColumns, rows: np.ndarray) -> np.ndarray:
    """Return the share of the summed intensity that peaks at the precursor m/z hold: 1 is a spectrum without fragments.

    Also called survival yield. Isotopic peaks of the precursor do not count. Where whoever deposited a spectrum has
    removed the precursor, the share is 0 all the same.

    Parameters
    ----------
    rows : int64 array of shape (n,)

    Returns
    -------
    float64 array of shape (n,)
        NaN for a spectrum without intensity.
    """
    taken = columns.take(rows)
    spectrum, _ = taken.peak_places()
    precursor_mz = taken.precursor_mz[spectrum]
    tolerance = np.maximum(PRECURSOR_DA, precursor_mz * PRECURSOR_PPM * 1e-6)
    intensity = taken.intensity.astype(np.float64)
    survived = np.where(np.abs(taken.mz - precursor_mz) <= tolerance, intensity, 0.0)
    total = np.bincount(spectrum, intensity, len(taken))
    share = np.bincount(spectrum, survived, len(taken)) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, share, np.nan)


def nearest_train_tanimoto(data: EvaluationData, fingerprint: np.ndarray) -> np.ndarray:
    """Return how alike each molecule is to the nearest one that has a spectrum in the fold 'train'.

    Parameters
    ----------
    fingerprint : uint8 array of shape (at least m, n_bytes)
        Packed Morgan fingerprints of the molecules of the data (such as `Candidates.fingerprint`), zeros where there
        is none.

    Returns
    -------
    float64 array of shape (m,)
        Tanimoto similarity; 1 for a molecule that is itself in 'train', NaN where the molecule has no fingerprint
        or nothing is in 'train'.
    """
    num_molecules = len(data.inchikey_block)
    fingerprint = fingerprint[:num_molecules]
    in_train = np.zeros(num_molecules, bool)
    in_train[data.molecule[data.fold == "train"]] = True
    known = fingerprint.any(axis=1)
    nearest = np.full(num_molecules, np.nan)
    train = np.unpackbits(fingerprint[in_train & known], axis=1)
    asked = np.flatnonzero(known & ~in_train)
    if len(train):
        for begin in range(0, len(asked), MOLECULES_PER_CHUNK):
            chunk = asked[begin : begin + MOLECULES_PER_CHUNK]
            nearest[chunk] = tanimoto_matrix(np.unpackbits(fingerprint[chunk], axis=1), train).max(axis=1)
    nearest[in_train] = 1.0
    return nearest


def query_values(
    data: EvaluationData, rows: np.ndarray, nearest_train: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the numbers by which spectra are told apart, float64 arrays of shape (n,), NaN where unknown.

    Parameters
    ----------
    rows : int64 array of shape (n,)
        Rows of the data.
    nearest_train : float64 array of shape (m,), optional
        See `nearest_train_tanimoto`; left out without it.

    Returns
    -------
    dict
        ``collision_energy`` in eV, ``precursor_mz`` in Da per charge, ``num_peaks``, ``spectral_entropy`` in nats,
        ``precursor_survival`` from 0 to 1, ``nearest_train_tanimoto``.
    """
    columns = data.columns
    found = {
        "collision_energy": columns.collision_energy[rows].astype(np.float64),
        "precursor_mz": columns.precursor_mz[rows],
        "num_peaks": columns.num_peaks[rows].astype(np.float64),
        "spectral_entropy": spectral_entropy(columns, rows),
        "precursor_survival": precursor_survival(columns, rows),
    }
    if nearest_train is not None:
        found["nearest_train_tanimoto"] = nearest_train[data.molecule[rows]]
    return found


def chemical_classes(data: EvaluationData) -> np.ndarray:
    """Return the class of each molecule at each of `CHEMONT_LEVELS`, object array of str or None, of shape (m, 3).

    The class is the path that most spectra of the molecule name, the first in the alphabet where several tie. A level
    that the path does not reach is None.
    """
    named: dict[int, Counter[str]] = defaultdict(Counter)
    for molecule, path in zip(data.molecule.tolist(), data.table["chemical_class"].to_pylist(), strict=True):
        if path:
            named[molecule][path] += 1
    found = np.full((len(data.inchikey_block), len(CHEMONT_LEVELS)), None, object)
    for molecule, paths in named.items():
        most_named = min(paths.items(), key=lambda item: (-item[1], item[0]))[0]
        for level, name in enumerate(most_named.split(";")[: len(CHEMONT_LEVELS)]):
            found[molecule, level] = name.strip() or None
    return found
