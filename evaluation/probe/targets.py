"""What a linear head is asked to read off a spectrum: classes, fingerprint bits, substructures, properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..candidates import Candidates
from ..dataset import EvaluationData
from ..query_properties import CHEMONT_LEVELS, chemical_classes

TargetKind = Literal["classes", "bits", "numbers"]

MACRO_F1, ACCURACY, ROC_AUC, R2 = "macro F1", "accuracy", "ROC AUC", "R2"

METRICS: Mapping[TargetKind, tuple[str, ...]] = {"classes": (MACRO_F1, ACCURACY), "bits": (ROC_AUC,), "numbers": (R2,)}
"""Of each kind of target, the main one first."""

SUBSTRUCTURES: Mapping[str, str] = {
    "fluorine": "[F]",
    "chlorine": "[Cl]",
    "bromine": "[Br]",
    "sulfur": "[#16]",
    "phosphorus": "[#15]",
    "carboxylic acid": "[CX3](=O)[OX2H1,OX1-]",
    "ester": "[CX3](=O)[OX2][#6]",
    "amide": "[NX3][CX3](=O)[#6]",
    "sulfonamide": "[SX4](=O)(=O)[NX3]",
    "nitro": "[NX3+](=O)[O-]",
    "aromatic hydroxyl": "[OX2H][c]",
    "aliphatic hydroxyl": "[OX2H][CX4]",
    "methoxyl": "[OX2]([CH3])[#6]",
    "aliphatic amine": "[NX3;!$(N[C,S]=[O,S,N]);!$(N-[a])]([CX4])",
    "pyranose ring": "[OX2]1[CX4][CX4][CX4][CX4][CX4]1",
    "indole": "c1ccc2[nH,n]ccc2c1",
    "pyridine": "n1ccccc1",
}
"""SMARTS (Daylight) by name."""

PROPERTIES = ("logP", "TPSA", "aromatic rings")

SUPERCLASS, CLASS, FINGERPRINT_BITS, SUBSTRUCTURE, PROPERTY = TARGETS = (
    "chemical superclass", "chemical class", "fingerprint bits", "substructures", "properties",
)  # fmt: skip
"""Names of all targets."""


@dataclass(frozen=True, eq=False)
class Target:
    """One question to a linear head.

    Attributes
    ----------
    name : str
    kind : 'classes', 'bits' or 'numbers'
    labels : tuple of str
        Of the classes, bits or numbers.
    truth : array
        By molecule of the data: int64 of shape (m,), -1 for no class; else float64 of shape (m, K).
    counts : dict of str to int
    """

    name: str
    kind: TargetKind
    labels: tuple[str, ...]
    truth: np.ndarray = field(repr=False)
    counts: dict[str, int]

    @property
    def main(self) -> str:
        """The metric by which a verdict is put into words."""
        return METRICS[self.kind][0]


@dataclass(frozen=True)
class TargetOptions:
    """Which answers are frequent enough to be asked for.

    Attributes
    ----------
    min_train_molecules, min_test_molecules : int
        Molecules of a class, or with and without a bit, in the fold 'train' and in the fold that is asked about.
    max_bits : int
        Fingerprint bits asked for, the most evenly set ones.
    """

    min_train_molecules: int = 20
    min_test_molecules: int = 5
    max_bits: int = 256

    def __post_init__(self) -> None:
        for name in ("min_train_molecules", "min_test_molecules", "max_bits"):
            if getattr(self, name) < 1:
                raise ValueError(f"'{name}' is {getattr(self, name)}; it must be at least 1")


def targets_of(data: EvaluationData, molecules: Candidates, fold: str, options: TargetOptions) -> list[Target]:
    """Return every target that enough molecules of both folds have an answer to.

    Parameters
    ----------
    molecules : Candidates
        The first are those of the data. Every spectrum of ``data`` is of one that RDKit can read.
    fold : str
        That is asked about.
    """
    train, test = (np.unique(data.molecule[data.rows_in(name)]) for name in ("train", fold))
    classes = chemical_classes(data)
    found = [
        _classes(name, classes[:, CHEMONT_LEVELS.index(name.removeprefix("chemical "))], train, test, options)
        for name in (SUPERCLASS, CLASS)
    ]
    bits = np.unpackbits(molecules.fingerprint[: len(data.inchikey_block)], axis=1)
    known = np.unique(data.molecule)
    labels = [f"bit {number}" for number in range(bits.shape[1])]
    found.append(_bits(FINGERPRINT_BITS, labels, _without_repeats(bits, known), train, test, options))
    has, numbers = (np.zeros((len(data.inchikey_block), len(of))) for of in (SUBSTRUCTURES, PROPERTIES))
    has[known], numbers[known] = describe([str(text) for text in molecules.smiles[known]])
    found.append(_bits(SUBSTRUCTURE, list(SUBSTRUCTURES), has, train, test, options))
    found.append(Target(PROPERTY, "numbers", PROPERTIES, numbers,
                        {"train molecules": len(train), "molecules": len(test)}))  # fmt: skip
    return [target for target in found if len(target.labels) > (target.kind == "classes")]


def describe(smiles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return which `SUBSTRUCTURES` molecules have, and their `PROPERTIES`; float64 of shapes (n, 17) and (n, 3).

    logP after Wildman and Crippen (1999), the topological polar surface area (A^2) after Ertl et al. (2000).

    Raises
    ------
    ValueError
        RDKit cannot read one of the SMILES.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem.rdMolDescriptors import CalcCrippenDescriptors, CalcNumAromaticRings, CalcTPSA

    patterns = [Chem.MolFromSmarts(smarts) for smarts in SUBSTRUCTURES.values()]
    has, numbers = np.zeros((len(smiles), len(patterns))), np.zeros((len(smiles), len(PROPERTIES)))
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text)
            if mol is None:
                raise ValueError(f"RDKit cannot read the SMILES {text!r}")
            has[row] = [mol.HasSubstructMatch(pattern) for pattern in patterns]
            numbers[row] = CalcCrippenDescriptors(mol)[0], CalcTPSA(mol), CalcNumAromaticRings(mol)
    return has, numbers


def _classes(name: str, label: np.ndarray, train: np.ndarray, test: np.ndarray, options: TargetOptions) -> Target:
    trained = _counted(label[train])
    tested = _counted(label[test])
    kept = sorted(
        text
        for text, number in trained.items()
        if number >= options.min_train_molecules and tested.get(text, 0) >= options.min_test_molecules
    )
    number_of = {text: number for number, text in enumerate(kept)}
    truth = np.array([number_of.get(text, -1) for text in label], np.int64)
    counts = {
        "train molecules": int(np.count_nonzero(truth[train] >= 0)),
        "molecules": int(np.count_nonzero(truth[test] >= 0)),
        "molecules of rarer or unknown classes, left out": int(np.count_nonzero(truth[test] < 0)),
    }
    return Target(name, "classes", tuple(kept), truth, counts)


def _bits(
    name: str, labels: Sequence[str], bits: np.ndarray, train: np.ndarray, test: np.ndarray, options: TargetOptions
) -> Target:
    enough = np.ones(bits.shape[1], bool)
    for molecules, least in ((train, options.min_train_molecules), (test, options.min_test_molecules)):
        with_it = bits[molecules].sum(axis=0, dtype=np.int64)
        enough &= (with_it >= least) & (len(molecules) - with_it >= least)
    places = np.flatnonzero(enough)
    evenness = -np.abs(bits[train][:, places].mean(axis=0) - 0.5)
    places = np.sort(places[np.argsort(-evenness, kind="stable")][: options.max_bits])
    counts = {"train molecules": len(train), "molecules": len(test), "left out": bits.shape[1] - len(places)}
    return Target(
        name, "bits", tuple(labels[place] for place in places.tolist()), bits[:, places].astype(np.float64), counts
    )


def _without_repeats(bits: np.ndarray, molecules: np.ndarray) -> np.ndarray:
    """Return bits with every column that repeats an earlier one (over ``molecules``) set to 0, which nothing asks."""
    packed = np.packbits(bits[molecules], axis=0).T
    _, first = np.unique(packed, axis=0, return_index=True)
    kept = np.zeros(bits.shape[1], bool)
    kept[first] = True
    return bits * kept


def _counted(labels: np.ndarray) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in labels:
        if text is not None:
            found[text] = found.get(text, 0) + 1
    return found
