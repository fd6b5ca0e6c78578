"""Contrastive batches: molecules with several spectra each, isobars from the same window, and close analogues."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..spectra.molecules import tanimoto_matrix
from .config import SamplingConfig

NUM_NEIGHBOURS = 16
"""Most similar molecules of each molecule from which its analogues are drawn."""

ENERGIES = (15.0, 25.0, 40.0, 60.0)
"""Collision energies (eV) between which spectra count as made under like conditions."""


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
    formula : object array of shape (n_molecules,), optional
        Of every molecule number, for negatives of the same formula.
    conditions : int array of shape (n_rows, n_conditions), optional
        Of every row of the store, where a molecule's spectra shall differ in them: those of `condition_codes`.

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
        *,
        formula: np.ndarray | None = None,
        conditions: np.ndarray | None = None,
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
        self.places = {sign: _places_of(self.molecule, polarity[self.rows] == sign) for sign in (1, -1, 0)}
        most = max(len(places) for places in self.places.values())
        if most < config.anchors:
            raise InputError(f"sampling.anchors is {config.anchors} but only {most} molecules have spectra; lower it")
        self.neighbours = self._neighbours(fingerprints) if config.analogues_per_anchor else {}
        self.isomers = _isomers(formula, np.unique(self.molecule)) if formula is not None else {}
        self.conditions = conditions[self.rows] if conditions is not None else None

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch; every molecule of a polarity is an anchor once.

        Batches are of one polarity: spectra of a molecule in the other have little in common and are never compared.
        The last molecules of a polarity wait for another epoch if they are fewer than half of a batch.
        """
        generator = np.random.default_rng([seed, epoch])
        batches, size = [], self.config.anchors
        for places in self.places.values():
            anchors = generator.permutation(np.array(sorted(places), np.int64))
            parts = [anchors[i : i + size] for i in range(0, len(anchors), size)]
            batches += [self._batch(part, places, generator) for part in parts if len(part) >= max(2, size // 2)]
        return [batches[i] for i in generator.permutation(len(batches))]

    def _batch(self, anchors: np.ndarray, places: dict[int, np.ndarray], generator: np.random.Generator) -> np.ndarray:
        config, chosen = self.config, []
        half = config.spectra_per_molecule // 2
        for anchor in anchors.tolist():
            own = self._spectra(places[anchor], config.spectra_per_molecule, generator)
            chosen.append(own)
            place = own[0]
            window = np.arange(self.window_start[place], self.window_stop[place])
            window = window[self.molecule[window] != anchor]
            isobars = self._draw(np.unique(self.molecule[window]), config.negatives_per_anchor, generator)
            chosen += [self._spectra(window[self.molecule[window] == m], half, generator) for m in isobars.tolist()]
            if config.formula_negatives_per_anchor:
                same = np.array([m for m in self.isomers.get(anchor, ()) if m in places], np.int64)
                isomers = self._draw(same, config.formula_negatives_per_anchor, generator)
                chosen += [self._spectra(places[m], half, generator) for m in isomers.tolist()]
            near = [m for m in self.neighbours.get(anchor, ()) if m in places]
            analogues = self._draw(np.array(near, np.int64), config.analogues_per_anchor, generator)
            chosen += [self._spectra(places[m], half, generator) for m in analogues.tolist()]
        return np.sort(self.rows[np.unique(np.concatenate(chosen))])

    def _spectra(self, places: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
        """Draw among the spectra of a molecule."""
        if self.conditions is None:
            return self._draw(places, most, generator)
        shuffled = generator.permutation(places)
        return shuffled[spread(self.conditions[shuffled])[:most]]

    @staticmethod
    def _draw(items: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(items)[:most]

    def _neighbours(self, fingerprints: np.ndarray) -> dict[int, list[int]]:
        """Return the most similar molecules of each molecule, by Tanimoto similarity."""
        result: dict[int, list[int]] = {}
        present = np.unique(self.molecule)
        most = min(NUM_NEIGHBOURS, len(present) - 1)
        for start in range(0, len(present), 512):
            part = present[start : start + 512]
            similarity = tanimoto_matrix(fingerprints[part], fingerprints[present])
            similarity[np.arange(len(part)), start + np.arange(len(part))] = -1
            nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
            result.update(zip(part.tolist(), present[nearest].tolist(), strict=True))
        return result


def condition_codes(laboratory: np.ndarray, instrument_type: np.ndarray, collision_energy: np.ndarray) -> np.ndarray:
    """Return numbers for the laboratory of each spectrum, its instrument type there, and its energy with that.

    Parameters
    ----------
    laboratory, instrument_type : object arrays of shape (n,)
        str or None.
    collision_energy : float array of shape (n,)
        In eV, NaN where unknown; those within an interval of `ENERGIES` are alike.

    Returns
    -------
    int64 array of shape (n, 3)
        Equal in column j where the first j + 1 conditions are.
    """
    energy = np.where(np.isnan(collision_energy), len(ENERGIES) + 1, np.searchsorted(ENERGIES, collision_energy))
    columns, code = [], np.zeros(len(energy), np.int64)
    for values in (laboratory, instrument_type, energy):
        _, number = np.unique(np.array([str(value) for value in values.tolist()]), return_inverse=True)
        _, code = np.unique(code * (number.max(initial=0) + 1) + number, return_inverse=True)
        columns.append(code)
    return np.stack(columns, axis=1)


def spread(codes: np.ndarray) -> np.ndarray:
    """Return an order of spectra in which those come first that differ in their conditions.

    Parameters
    ----------
    codes : int array of shape (n, n_conditions)
        See `condition_codes`.

    Returns
    -------
    int64 array of shape (n,)
        All combinations of conditions take turns; within a turn laboratories do, then instruments, and so on. What
        remains equal stays in the order given.
    """
    order = np.arange(len(codes))
    for column in codes.T:
        order = order[np.argsort(_times_seen(column[order]), kind="stable")]
    return order


def _times_seen(codes: np.ndarray) -> np.ndarray:
    """Return how often each number has come before."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    seen = np.empty(len(codes), np.int64)
    seen[order] = np.arange(len(codes)) - np.searchsorted(ordered, ordered, "left")
    return seen


def _isomers(formula: np.ndarray, molecules: np.ndarray) -> dict[int, list[int]]:
    """Return for each molecule the others of its formula."""
    of_formula: dict[str, list[int]] = {}
    for molecule in molecules.tolist():
        of_formula.setdefault(formula[molecule], []).append(molecule)
    return {m: [other for other in of_formula[formula[m]] if other != m] for m in molecules.tolist()}


def _places_of(molecule: np.ndarray, chosen: np.ndarray) -> dict[int, np.ndarray]:
    """Return where each molecule stands among the ``chosen``."""
    places = np.flatnonzero(chosen)
    places = places[np.argsort(molecule[places], kind="stable")]
    if not len(places):
        return {}
    present, starts = np.unique(molecule[places], return_index=True)
    return dict(zip(present.tolist(), np.split(places, starts[1:]), strict=True))


def numbered_molecules(inchikey: np.ndarray, smiles: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Give each molecule (first InChIKey block) a number.

    Returns
    -------
    molecule : int64 array of shape (n_rows,)
        -1 where a row has no structure.
    structures : dict of str to str
        First InChIKey block and SMILES of each molecule, in order of their numbers.
    """
    first: dict[str, str] = {}
    for key, text in zip(inchikey, smiles, strict=True):
        if key and text:
            first.setdefault(key[:14], text)
    numbers = {block: i for i, block in enumerate(sorted(first))}
    molecule = np.array([numbers.get(key[:14], -1) if key else -1 for key in inchikey], np.int64)
    return molecule, {block: first[block] for block in sorted(first)}
