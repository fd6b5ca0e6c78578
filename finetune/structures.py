"""The structures that spectra are compared with in training: those of their molecules, and others as negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..spectra.molecule_features import MoleculeFeatures
from ..spectra.molecules import parent_molecule
from .config import MoleculesConfig
from .pool import Pool

_HAS_CHARGES_OR_PARTS = ("+", "-", ".")
"""A SMILES of a store is that of the parent molecule already, unless it has one of them."""


def parents_of(structures: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return first InChIKey block and SMILES of the parent molecule of each molecule, in order.

    What is embedded of a structure in an index and in an evaluation too: `ionbed.spectra.molecules.parent_molecule`.

    Parameters
    ----------
    structures : mapping of str to str
        Of a store, as `ionbed.finetune.sampling.numbered_molecules` returns them.
    """
    found = []
    for block, smiles in structures.items():
        may_differ = any(sign in smiles for sign in _HAS_CHARGES_OR_PARTS)
        parent = parent_molecule(smiles) if may_differ else None
        found.append((block, smiles) if parent is None else (parent.inchikey[:14], parent.smiles))
    return found


@dataclass(frozen=True, eq=False)
class TrainingStructures:
    """Structures that training may see: of molecules with spectra, then of the pool.

    Attributes
    ----------
    number_of : int64 array
        Number of each molecule's structure (-1: of no spectrum that is trained or validated on). A salt and its base
        are two molecules of a store and have one structure.
    features : MoleculeFeatures
        Of each structure.
    first_of_pool : int
        Structures from this number on are of the pool.
    """

    number_of: np.ndarray
    features: MoleculeFeatures
    first_of_pool: int

    @classmethod
    def of(cls, used: np.ndarray, parents: Sequence[tuple[str, str]], pool: Pool | None = None) -> TrainingStructures:
        """Collect the structures of the molecules ``used`` (numbers), of all whose parents (`parents_of`) are given."""
        number_of = np.full(len(parents), -1, np.int64)
        smiles: dict[str, str] = {}
        number_of_block: dict[str, int] = {}
        for molecule in used.tolist():
            block, text = parents[molecule]
            smiles.setdefault(block, text)
            number_of[molecule] = number_of_block.setdefault(block, len(number_of_block))
        features = MoleculeFeatures.of(list(smiles.values()))
        if pool is not None:
            features = MoleculeFeatures.concatenated([features, pool.features])
        return cls(number_of, features, len(smiles))

    def __len__(self) -> int:
        """Return the number of structures."""
        return len(self.features)


class StructureSampler:
    """Draws the structures of a batch.

    Parameters
    ----------
    structures : TrainingStructures
    molecules : int64 array
        Numbers of the molecules whose structures may be drawn.
    window_ppm : float
        Of the masses of isobars.
    config : MoleculesConfig
    use_pool : bool
        Draw from the pool too, as much as the configuration says.
    """

    def __init__(
        self,
        structures: TrainingStructures,
        molecules: np.ndarray,
        window_ppm: float,
        config: MoleculesConfig,
        *,
        use_pool: bool,
    ) -> None:
        self.structures, self.config, self.width = structures, config, window_ppm * 1e-6
        self.log_mass = np.log(structures.features.mass)
        measured = np.unique(structures.number_of[molecules])
        pool = np.arange(structures.first_of_pool, len(structures))
        share = config.pool_share if use_pool else 0.0
        self.sources = [(measured, 1 - share), (pool, share)]
        self.sources = [(self._by_mass(numbers), part) for numbers, part in self.sources if part > 0 and len(numbers)]

    def draw(self, molecules: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the numbers of structures: those of the molecules first, then isobars of each, then any others."""
        own = self.structures.number_of[molecules]
        found = [own]
        for numbers, share in self.sources:
            mass, centre = self.log_mass[numbers], self.log_mass[own]
            start = np.searchsorted(mass, centre - self.width, "left")
            stop = np.searchsorted(mass, centre + self.width, "right")
            for first, last in zip(start.tolist(), stop.tolist(), strict=True):
                near = np.setdiff1d(numbers[first:last], own)
                found.append(generator.permutation(near)[: _whole(share * self.config.isobars, generator)])
        result = _distinct(found)
        missing = max(0, self.config.structures - len(result))
        for numbers, share in self.sources:
            drawn = generator.choice(numbers, min(len(numbers), _whole(share * missing, generator)), replace=False)
            result = _distinct([result, drawn])
        return result

    def are_near(self, own: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return which of ``others`` are isobars of each of ``own``, itself not; bool of shape (n_own, n_others)."""
        near: np.ndarray = np.abs(self.log_mass[own][:, None] - self.log_mass[others]) <= self.width
        return near & (own[:, None] != others)

    def _by_mass(self, numbers: np.ndarray) -> np.ndarray:
        ordered: np.ndarray = numbers[np.argsort(self.log_mass[numbers], kind="stable")]
        return ordered


def _whole(expected: float, generator: np.random.Generator) -> int:
    """Return a whole number whose mean is ``expected``."""
    return int(expected + generator.random())


def _distinct(numbers: Sequence[np.ndarray]) -> np.ndarray:
    """Return every number once, where it comes first."""
    joined = np.concatenate(numbers)
    _, first = np.unique(joined, return_index=True)
    return joined[np.sort(first)]
