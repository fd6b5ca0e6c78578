"""Making splits of a store, by molecule or by spectrum: ``ionbed split STORE --out FILE --kind KIND``."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts import atomic_file, refuse_input_as_output
from ..errors import InputError
from ..spectra.molecules import element_formula, murcko_scaffold
from ..spectra.split import EXCLUDED, MOLECULES, Split
from ..spectra.store import Store
from .published_folds import MASSSPECGYM, split_by_massspecgym
from .split_audit import AUDIT_COLUMNS, audit_split, class_at_level, peak_digests, refuse_leaks

KINDS = (
    "inchikey-block", "formula", "scaffold", "mces", "chemical-class",
    "laboratory", "instrument-type", "low-energy", "random-spectrum",
)  # fmt: skip
"""Those that are drawn here; see docs/splits.md."""

PUBLISHED_KINDS = (MASSSPECGYM,)
"""Those that are read from ``folds_from``."""

HELD_OUT_COLUMNS = {"laboratory": "laboratory", "instrument-type": "instrument_type"}
"""Kinds that hold out values of a column of the store."""

_TAKES_HOLD_OUT = {*HELD_OUT_COLUMNS, "chemical-class"}
_TAKES_MOLECULES = {*HELD_OUT_COLUMNS, "low-energy"}


def _check_shares(test: float, validation: float) -> None:
    if not (0 <= test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise InputError(f"shares test={test} and validation={validation} must be from 0 and add up to less than 1")


@dataclass(frozen=True)
class SplitOptions:
    """How a split is made.

    Attributes
    ----------
    kind : str
        One of `KINDS` or `PUBLISHED_KINDS`.
    seed : int
    test, validation : float
        Shares asked for, from 0 to 1: of the molecules; of the spectra for ``laboratory``, ``instrument-type`` and
        ``random-spectrum``. The share of validation is of what is not tested where values are held out.
    hold_out : tuple of str
        The laboratories, instrument types or chemical classes to test on; drawn where empty.
    molecules : 'held-out' or 'shared'
        Whether training leaves out the molecules of the tested spectra, where spectra are held out.
    max_energy : float
        In eV: ``low-energy`` tests on spectra up to this collision energy.
    class_level : int
        Level of the path in ``chemical_class`` (ChemOnt): 1 kingdom, 2 superclass, 3 class, 4 subclass.
    mces_distance : float
        Two molecules nearer than this share a fold, in the sense of single linkage.
    solver_seconds : float
        For one pair; see `ionbed.spectra.mces.mces_clusters`.
    cache : Path or None
        Folder in which the MCES distances are kept; beside the split where None.
    workers : int or None
        Processes for the MCES distances; all cores where None.
    folds_from : Path or None
        A table of the benchmark whose folds a published kind takes.

    Raises
    ------
    InputError
        The options are impossible or do not go together.
    """

    kind: str = "inchikey-block"
    seed: int = 0
    test: float = 0.1
    validation: float = 0.05
    hold_out: tuple[str, ...] = ()
    molecules: str = "held-out"
    max_energy: float = 15.0
    class_level: int = 3
    mces_distance: float = 10.0
    solver_seconds: float = 1.0
    cache: Path | None = None
    workers: int | None = None
    folds_from: Path | None = None

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, *PUBLISHED_KINDS):
            raise InputError(f"kind is '{self.kind}'; it must be one of {', '.join((*KINDS, *PUBLISHED_KINDS))}")
        if self.kind in PUBLISHED_KINDS and self.folds_from is None:
            raise InputError(f"kind '{self.kind}' reads its folds from a file; name it with --folds-from")
        if self.kind in KINDS and self.folds_from is not None:
            raise InputError(f"kind '{self.kind}' draws its folds; leave out --folds-from, or choose another kind")
        _check_shares(self.test, self.validation)
        if self.hold_out and self.kind not in _TAKES_HOLD_OUT:
            raise InputError(f"kind '{self.kind}' holds out no named values; {', '.join(sorted(_TAKES_HOLD_OUT))} do")
        if self.molecules not in ("held-out", "shared"):
            raise InputError(f"molecules is '{self.molecules}'; it must be held-out or shared")
        if self.molecules == "shared" and self.kind not in _TAKES_MOLECULES:
            raise InputError(f"kind '{self.kind}' has no choice of molecules; {', '.join(sorted(_TAKES_MOLECULES))} do")
        if not 0 < self.max_energy < float("inf"):
            raise InputError(f"max_energy is {self.max_energy}; it must be above 0 eV")
        if not 1 <= self.class_level <= 11:
            raise InputError(f"class_level is {self.class_level}; it must lie between 1 and 11")
        if not 0 < self.mces_distance <= 30:
            raise InputError(f"mces_distance is {self.mces_distance}; it must be above 0 and at most 30")


def split_store(
    store: Path, out: Path, options: SplitOptions = SplitOptions(), *, overwrite: bool = False
) -> dict[str, Any]:
    """Split a prepared store, audit the split, and save both: ``out`` and, beside it, ``NAME.audit.json``.

    A split that is there already is kept unless ``overwrite``, or unless the new one is the same: models that were
    trained with it can be evaluated with no other.

    Returns
    -------
    dict
        The audit, see `ionbed.finetune.split_audit.audit_split`; ``audit['folds']`` has the counts.

    Raises
    ------
    InputError
        The store is unusable or lacks what the kind needs, ``out`` lies in it or is taken, the options are impossible,
        or the split leaks; nothing is written then.
    """
    opened = Store(store)
    refuse_input_as_output(out, store)
    table = opened.table((*AUDIT_COLUMNS, "native_id"))
    split = make_split(table, options, cache=options.cache or Path(f"{out}.cache"))
    if Path(out).exists() and not overwrite and not _is_split(Path(out), split.hash):
        raise InputError(f"{out}: already exists and is not this split; choose another name or pass --overwrite")
    audit = audit_split(split, table)
    refuse_leaks(audit)
    with atomic_file(audit_path(out)) as partial:
        partial.write_text(json.dumps(audit, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    split.save(out)
    return audit


def _is_split(path: Path, split_hash: str) -> bool:
    try:
        return Split.load(path).hash == split_hash
    except InputError:  # something else, which is not ours to replace either
        return False


def audit_path(out: str | os.PathLike[str]) -> Path:
    """Return where the audit of the split file ``out`` is written."""
    return Path(out).with_suffix(".audit.json")


def make_split(table: pa.Table, options: SplitOptions, *, cache: Path | None = None) -> Split:
    """Return the split of a table of the store with the columns `AUDIT_COLUMNS`, and ``native_id`` for published kinds.

    Raises
    ------
    InputError
        The spectra lack what the kind needs.
    """
    if options.kind == "inchikey-block":
        inchikeys = table["inchikey"].to_pylist()
        return split_by_inchikey_block(inchikeys, seed=options.seed, test=options.test, validation=options.validation)
    if options.folds_from is not None:
        return split_by_massspecgym(table, options.folds_from)
    makers: dict[str, Callable[[pa.Table, SplitOptions], Split]] = {
        "formula": lambda t, o: _by_groups(t, o, element_formula),
        "scaffold": lambda t, o: _by_groups(t, o, murcko_scaffold),
        "mces": lambda t, o: _by_mces(t, o, cache),
        "chemical-class": _by_class,
        "laboratory": _by_held_out_values,
        "instrument-type": _by_held_out_values,
        "low-energy": _by_energy,
        "random-spectrum": _by_spectrum,
    }
    return makers[options.kind](table, options)


def split_by_inchikey_block(
    inchikeys: Iterable[str | None], *, seed: int = 0, test: float = 0.1, validation: float = 0.05
) -> Split:
    """Assign every molecule (first InChIKey block) to a fold by a hash of its block and the seed.

    All spectra of a molecule, its stereoisomers included, share a fold; a molecule keeps its fold when the data set
    grows or shrinks.

    Parameters
    ----------
    inchikeys : iterable of str or None
        One per spectrum, repeats allowed.
    test, validation : float
        Expected shares of the molecules, from 0 to 1.

    Raises
    ------
    InputError
        The shares are impossible, or no spectrum has a structure.
    """
    _check_shares(test, validation)
    blocks = sorted({key[:14] for key in inchikeys if key})
    if not blocks:
        raise InputError("no spectrum has a structure (inchikey); a split by molecule needs labels")
    return Split("inchikey-block", seed, {block: _fold_by_draw(seed, block, test, validation) for block in blocks})


def assign_groups(sizes: Mapping[str, int], options: SplitOptions) -> dict[str, str]:
    """Assign whole groups to folds so that the folds have about the shares asked for.

    Groups are taken in the order of a hash of their name and the seed. One goes to 'test' if it fits into what is
    missing there, else to 'validation' if it fits there, else to 'train'. A group larger than a fold's share (all the
    acyclic molecules, say) therefore always trains, and no fold is larger than asked.

    Parameters
    ----------
    sizes : mapping of str to int
        Members of each group.

    Raises
    ------
    InputError
        A share above 0 is asked for, and no group is small enough for it.
    """
    total = sum(sizes.values())
    missing = {"test": options.test * total, "validation": options.validation * total}
    folds = {}
    for group in sorted(sizes, key=lambda group: (_draw(options.seed, group), group)):
        fold = next((fold for fold, room in missing.items() if sizes[group] <= room), "train")
        folds[group] = fold
        if fold != "train":
            missing[fold] -= sizes[group]
    for fold, share in (("test", options.test), ("validation", options.validation)):
        if share > 0 and fold not in folds.values():
            smallest = min(sizes.values(), default=0) / max(total, 1)
            raise InputError(
                f"kind '{options.kind}': no group fits into a {fold} share of {share} (of {len(sizes)} groups the "
                f"smallest has a share of {smallest:.3f}); raise the share, set it to 0, or choose another kind"
            )
    return folds


def connected_groups(members: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the group of each molecule, where molecules that have any property in common are in one group.

    Parameters
    ----------
    members : mapping of str to iterable of str
        The properties of each molecule: more than one where it is drawn in several ways.

    Returns
    -------
    dict
        The first of the group's properties, in alphabetical order, for each molecule with at least one.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    listed = {molecule: sorted(set(properties)) for molecule, properties in members.items()}
    for properties in listed.values():
        for other in properties[1:]:
            first, second = sorted((root(properties[0]), root(other)))
            parent[second] = first
    return {molecule: root(properties[0]) for molecule, properties in listed.items() if properties}


def smiles_of_molecules(table: pa.Table) -> dict[str, list[str]]:
    """Return the distinct SMILES of each first InChIKey block, sorted; empty where there is none."""
    result: defaultdict[str, set[str]] = defaultdict(set)
    for key, smiles in zip(table["inchikey"].to_pylist(), table["smiles"].to_pylist(), strict=True):
        if key:
            result[key[:14]].update([smiles] if smiles else [])
    if not result:
        raise InputError("no spectrum has a structure (inchikey); a split by molecule needs labels")
    return {block: sorted(found) for block, found in sorted(result.items())}


def _by_groups(table: pa.Table, options: SplitOptions, property_of: Callable[[str], str]) -> Split:
    molecules = smiles_of_molecules(table)
    properties: dict[str, list[str]] = {}
    for block, smiles in molecules.items():
        try:
            properties[block] = [property_of(text) for text in smiles]
        except ValueError:  # RDKit cannot read it, so nothing can be promised of it
            properties[block] = []
    return _split_of_groups(molecules, connected_groups(properties), options, {})


def _by_mces(table: pa.Table, options: SplitOptions, cache: Path | None) -> Split:
    from ..spectra.mces import mces_clusters

    molecules = smiles_of_molecules(table)
    blocks = [block for block, smiles in molecules.items() if smiles]
    clusters = mces_clusters(
        [molecules[block][0] for block in blocks],
        options.mces_distance,
        cache=cache,
        workers=options.workers,
        seconds=options.solver_seconds,
    )
    # A cluster is named by its first member, so that the name does not depend on the order of the store.
    first: dict[int, str] = {}
    for block, cluster in zip(blocks, clusters.tolist(), strict=True):
        first.setdefault(cluster, block)
    groups = {block: first[cluster] for block, cluster in zip(blocks, clusters.tolist(), strict=True)}
    return _split_of_groups(
        molecules, groups, options, {"mces_distance": options.mces_distance, "solver_seconds": options.solver_seconds}
    )


def _by_class(table: pa.Table, options: SplitOptions) -> Split:
    """Hold out chemical classes; a molecule that is filed under a held-out class and another is excluded."""
    molecules = smiles_of_molecules(table)
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for key, path in zip(table["inchikey"].to_pylist(), table["chemical_class"].to_pylist(), strict=True):
        if key and path:
            classes[key[:14]].add(class_at_level(path, options.class_level))
    sizes = Counter(name for names in classes.values() for name in names)
    if not sizes:
        raise InputError("no spectrum has a chemical class; choose another kind")
    if options.hold_out:
        _require_known(options.hold_out, sizes, f"chemical class at level {options.class_level}")
        held_out = set(options.hold_out)
    else:
        held_out = {name for name, fold in assign_groups(sizes, options).items() if fold == "test"}
    folds = {}
    for block in molecules:
        names = classes[block]
        if names and names <= held_out:
            folds[block] = "test"
        elif not names or names & held_out:
            folds[block] = EXCLUDED
        else:
            folds[block] = _fold_by_draw(options.seed, block, 0.0, options.validation)
    recorded = {"class_level": options.class_level, "held_out": sorted(held_out)}
    return Split(options.kind, options.seed, folds, options=_recorded(options, recorded))


def _split_of_groups(
    molecules: Iterable[str], groups: Mapping[str, str], options: SplitOptions, recorded: Mapping[str, Any]
) -> Split:
    """Return the split of molecules by group; a molecule without one is excluded."""
    by_group = assign_groups(Counter(groups.values()), options)
    folds = {block: by_group[groups[block]] if block in groups else EXCLUDED for block in molecules}
    return Split(options.kind, options.seed, folds, options=_recorded(options, recorded))


def _by_held_out_values(table: pa.Table, options: SplitOptions) -> Split:
    """Test on the spectra of some values of a column; spectra without a value are excluded."""
    column = HELD_OUT_COLUMNS[options.kind]
    values = np.array(table[column].to_pylist(), object)
    sizes = Counter(value for value in values if value is not None)
    if not sizes:
        raise InputError(f"no spectrum has a value in the column '{column}'; choose another kind")
    if options.hold_out:
        _require_known(options.hold_out, sizes, column)
        held_out = set(options.hold_out)
    else:
        only_test = SplitOptions(options.kind, options.seed, options.test, validation=0.0)
        held_out = {value for value, fold in assign_groups(sizes, only_test).items() if fold == "test"}
    blocks = _blocks(table)
    folds = np.full(len(table), "train", "U10")
    folds[[value is None for value in values]] = EXCLUDED
    is_test = np.array([value in held_out for value in values])
    folds[is_test] = "test"
    if options.molecules == "held-out":
        tested = set(blocks[is_test & (blocks != "")].tolist())
        folds[(folds == "train") & np.isin(blocks, sorted(tested))] = EXCLUDED
    _draw_validation(folds, blocks, options)
    return _split_of_spectra(table, folds, options, {"column": column, "held_out": sorted(held_out)})


def _by_energy(table: pa.Table, options: SplitOptions) -> Split:
    """Test on spectra of low collision energy, train on the others; of unknown energy, both leave them out.

    Nearly every molecule has spectra of both. With ``molecules='held-out'`` the tested molecules are therefore drawn;
    their other spectra are excluded, and so are the low-energy spectra of the molecules that are trained on.
    """
    energy = table["collision_energy"].fill_null(float("nan")).to_numpy()
    is_low = energy <= options.max_energy
    if not is_low.any():
        raise InputError(f"no spectrum has a collision energy of {options.max_energy} eV or less; raise --max-energy")
    blocks = _blocks(table)
    folds = np.full(len(table), EXCLUDED, "U10")
    folds[energy > options.max_energy] = "train"
    if options.molecules == "shared":
        folds[is_low] = "test"
    else:
        drawn = {block for block in set(blocks.tolist()) if block and _draw(options.seed, block) < options.test}
        is_drawn = np.isin(blocks, sorted(drawn))
        folds[is_drawn] = EXCLUDED
        folds[is_low & is_drawn] = "test"
    _draw_validation(folds, blocks, options)
    return _split_of_spectra(table, folds, options, {"column": "collision_energy", "max_energy": options.max_energy})


def _by_spectrum(table: pa.Table, options: SplitOptions) -> Split:
    folds = [
        _fold_by_draw(options.seed, spectrum_id, options.test, options.validation)
        for spectrum_id in table["spectrum_id"].to_pylist()
    ]
    return _split_of_spectra(table, np.array(folds, "U10"), options, {})


def _split_of_spectra(table: pa.Table, folds: np.ndarray, options: SplitOptions, recorded: Mapping[str, Any]) -> Split:
    """Return a split by spectrum. A peak list that is in two folds is one measurement: it stays where it is tested."""
    digests = peak_digests(table)
    for kept, dropped in (("test", "validation"), ("test", "train"), ("validation", "train")):
        folds[(folds == dropped) & np.isin(digests, digests[folds == kept])] = EXCLUDED
    for fold, share in (("train", 1.0), ("test", 1.0), ("validation", options.validation)):
        if share > 0 and fold not in folds:
            raise InputError(f"kind '{options.kind}': no spectrum is left for the fold '{fold}'; hold out less or more")
    shares = options.kind == "random-spectrum" or options.molecules == "shared"
    if options.kind in _TAKES_MOLECULES:
        recorded = {**recorded, "molecules": options.molecules}
    return Split(
        options.kind,
        options.seed,
        dict(zip(table["spectrum_id"].to_pylist(), folds.tolist(), strict=True)),
        unit="spectrum",
        shares=(MOLECULES,) if shares else (),
        options=_recorded(options, recorded),
    )


def _draw_validation(folds: np.ndarray, blocks: np.ndarray, options: SplitOptions) -> None:
    """Move the spectra of a share of the molecules from 'train' to 'validation', in place."""
    training = set(blocks[(folds == "train") & (blocks != "")].tolist())
    # Another hash than the one that draws tested molecules, of which none is left below its threshold.
    chosen = [block for block in training if _draw(options.seed, f"validation {block}") < options.validation]
    folds[(folds == "train") & np.isin(blocks, sorted(chosen))] = "validation"


def _blocks(table: pa.Table) -> np.ndarray:
    """Return the first InChIKey block of each row, '' where there is none, a str array."""
    return np.array(pc.utf8_slice_codeunits(table["inchikey"], 0, 14).fill_null("").to_pylist(), "U14")


def _recorded(options: SplitOptions, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"test": options.test, "validation": options.validation, **more}


def _require_known(names: Iterable[str], known: Mapping[str, int], what: str) -> None:
    for name in names:
        if name not in known:
            most = ", ".join(sorted(known, key=lambda value: (-known[value], value))[:8])
            raise InputError(f"--hold-out: no spectrum has the {what} '{name}'; there are {most} and others")


def _fold_by_draw(seed: int, key: str, test: float, validation: float) -> str:
    draw = _draw(seed, key)
    return "test" if draw < test else "validation" if draw < test + validation else "train"


def _draw(seed: int, key: str) -> float:
    """Return a number from 0 to 1 that the seed and the key decide."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64
