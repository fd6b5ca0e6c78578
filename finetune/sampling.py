"""Contrastive batches: molecules with several spectra each, isobars from the same window, and close analogues."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..spectra.molecules import morgan_fingerprints, tanimoto_matrix
from .config import SamplingConfig

NUM_NEIGHBOURS = 16
"""Most similar molecules of each molecule from which its analogues are drawn."""


class MoleculeBatches:
    """Draws the rows of contrastive batches.

    Parameters
    ----------
    rows : int64 array of shape (n,)
        Rows of the store with a structure.
    molecule : int64 array
        Molecule number of every row of the store (indexed by row; -1 without a structure).
    precursor_mz, polarity : arrays
        Of every row of the store.
    fingerprints : uint8 array of shape (n_molecules, n_bits)
        Of every molecule number.

    Raises
    ------
    InputError
        Fewer molecules than a batch has anchors.
    """

    def __init__(
        self,
        rows: np.ndarray,
        molecule: np.ndarray,
        precursor_mz: np.ndarray,
        polarity: np.ndarray,
        fingerprints: np.ndarray,
        config: SamplingConfig,
    ) -> None:
        self.config = config
        # One axis for both polarities: they are further apart than any window.
        axis = np.log(precursor_mz[rows]) + 1e3 * polarity[rows]
        order = np.argsort(axis, kind="stable")
        self.rows, axis = rows[order], axis[order]
        self.molecule = molecule[self.rows]
        width = config.window_ppm * 1e-6
        self.window_start = np.searchsorted(axis, axis - width, side="left")
        self.window_stop = np.searchsorted(axis, axis + width, side="right")
        by_molecule = np.argsort(self.molecule, kind="stable")
        self.present, starts = np.unique(self.molecule[by_molecule], return_index=True)
        self.places = dict(zip(self.present.tolist(), np.split(by_molecule, starts[1:]), strict=True))
        if len(self.present) < config.anchors:
            raise InputError(
                f"sampling.anchors is {config.anchors} but only {len(self.present)} molecules have spectra; lower it"
            )
        self.neighbours = self._neighbours(fingerprints) if config.analogues_per_anchor else {}

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch; every molecule is an anchor once (the last few may wait)."""
        generator = np.random.default_rng([seed, epoch])
        anchors = generator.permutation(self.present)
        size = self.config.anchors
        return [self._batch(anchors[i : i + size], generator) for i in range(0, len(anchors) - size + 1, size)]

    def _batch(self, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        config, chosen = self.config, []
        for anchor in anchors.tolist():
            own = self._draw(self.places[anchor], config.spectra_per_molecule, generator)
            chosen.append(own)
            place = own[0]
            window = np.arange(self.window_start[place], self.window_stop[place])
            window = window[self.molecule[window] != anchor]
            isobars = self._draw(np.unique(self.molecule[window]), config.negatives_per_anchor, generator)
            half = config.spectra_per_molecule // 2
            chosen += [self._draw(window[self.molecule[window] == m], half, generator) for m in isobars.tolist()]
            near = self.neighbours.get(anchor, np.empty(0, np.int64))
            analogues = self._draw(near, config.analogues_per_anchor, generator)
            chosen += [self._draw(self.places[m], half, generator) for m in analogues.tolist()]
        return np.sort(self.rows[np.unique(np.concatenate(chosen))])

    @staticmethod
    def _draw(items: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(items)[:most]

    def _neighbours(self, fingerprints: np.ndarray) -> dict[int, np.ndarray]:
        result: dict[int, np.ndarray] = {}
        most = min(NUM_NEIGHBOURS, len(self.present) - 1)
        for start in range(0, len(self.present), 512):
            part = self.present[start : start + 512]
            similarity = tanimoto_matrix(fingerprints[part], fingerprints[self.present])
            similarity[np.arange(len(part)), start + np.arange(len(part))] = -1
            nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
            result.update(zip(part.tolist(), self.present[nearest], strict=True))
        return result


def molecule_fingerprints(inchikey: np.ndarray, smiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each molecule (first InChIKey block) a number, and compute the Morgan fingerprints of all.

    Returns
    -------
    molecule : int64 array of shape (n_rows,)
        -1 where a row has no structure.
    fingerprints : uint8 array of shape (n_molecules, 2048)
    """
    first: dict[str, str] = {}
    for key, text in zip(inchikey, smiles, strict=True):
        if key and text:
            first.setdefault(key[:14], text)
    numbers = {block: i for i, block in enumerate(sorted(first))}
    molecule = np.array([numbers.get(key[:14], -1) if key else -1 for key in inchikey], np.int64)
    return molecule, morgan_fingerprints([first[block] for block in sorted(first)])
