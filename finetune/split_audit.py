"""What a split shares across its borders, counted and compared with what its kind promises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InputError
from ..progress import counted
from ..spectra.columns import SpectrumColumns
from ..spectra.molecules import element_formula, morgan_fingerprints, murcko_scaffold, tanimoto_matrix
from ..spectra.near_duplicates import NearDuplicateOptions, bucket_keys, similarities_of_pairs, unit_vectors
from ..spectra.split import EXCLUDED, FOLDS, MOLECULES, Split

AUDIT_COLUMNS = (*Split.TABLE_COLUMNS, "smiles", "chemical_class", "laboratory", *SpectrumColumns.TABLE_COLUMNS)
"""Columns of the store that an audit reads."""

NUM_EXAMPLES = 5
"""Examples that stand for a finding."""

NUM_MCES_CHECKED = 50
"""Test molecules whose distance to the nearest one of train by Tanimoto similarity is computed, where MCES counts."""

ENERGY_BINS = (15.0, 30.0, 45.0, 60.0)
"""eV. Borders of the bins of collision energy in the table of strata."""

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

_FOLD_PAIRS = tuple(combinations(FOLDS, 2))
_PAIRS_AT_ONCE = 200_000
_ROUNDING = 1e-6  # equal spectra have a similarity of 1 within this


def audit_split(split: Split, table: pa.Table) -> dict[str, Any]:
    """Return what the folds of a split have in common; it depends on the folds alone, not on how they were made.

    Parameters
    ----------
    table : pyarrow.Table
        Of the store, with the columns `AUDIT_COLUMNS`.

    Returns
    -------
    dict
        Ready for JSON: ``split`` (kind, seed, hash, shares, options); ``folds`` with the number of ``molecules`` and
        ``spectra`` of each; ``nearest_train_tanimoto``, the distribution over the test molecules of the similarity to
        the nearest training molecule (Morgan fingerprints); ``shared``, the molecules, formulas and scaffolds that
        train and test share; ``near_duplicates``, how many test spectra have a copy or a near-duplicate in train;
        ``strata``, spectra by value and fold; and ``leaks``, what the kind promises not to share and is shared, each
        with its count and examples.

    Raises
    ------
    InputError
        A spectrum or its molecule is not in the split.
    """
    folds = split.fold_of_rows(table)
    blocks = np.array([key[:14] if key else "" for key in table["inchikey"].to_pylist()], "U14")
    members = {fold: set(blocks[(folds == fold) & (blocks != "")].tolist()) for fold in (*FOLDS, EXCLUDED)}
    smiles = _smiles_of_blocks(table, blocks)
    properties = {"formulas": _properties(smiles, element_formula), "scaffolds": _properties(smiles, murcko_scaffold)}
    nearest = _nearest_train(members, smiles)
    duplicates = _duplicates(table, folds, blocks)
    shared = {"molecules": len(members["train"] & members["test"])}
    for name, of_block in properties.items():
        shared[name] = len(_values(members["train"], of_block) & _values(members["test"], of_block))
    return {
        "split": {
            "kind": split.kind, "seed": split.seed, "hash": split.hash, "unit": split.unit,
            "shares": list(split.shares), "options": dict(split.options),
        },
        "folds": {
            fold: {"molecules": len(members[fold]), "spectra": int(np.count_nonzero(folds == fold))}
            for fold in (*FOLDS, EXCLUDED)
            if fold in FOLDS or np.any(folds == fold)
        },
        "nearest_train_tanimoto": _distribution(nearest),
        "shared": shared,
        "near_duplicates": duplicates,
        "strata": _strata(table, folds, blocks),
        "leaks": [
            leak
            for leak in (
                *_shared_molecules(split, members),
                *_shared_spectra(split, table, folds, duplicates),
                *_broken_promise(split, table, folds, members, properties, smiles, nearest),
            )
            if leak["count"]
        ],
    }  # fmt: skip


def refuse_leaks(audit: Mapping[str, Any]) -> None:
    """Raise `InputError` with the evidence if the audit found a leak."""
    if audit["leaks"]:
        found = "; ".join(
            f"{leak['count']:,} {leak['what']} ({', '.join(leak['examples'])})" for leak in audit["leaks"]
        )
        raise InputError(
            f"the split '{audit['split']['kind']}' leaks: {found}; it is not saved, make it anew with 'ionbed split'"
        )


def describe_audit(audit: Mapping[str, Any]) -> list[str]:
    """Return what to tell of an audit, a line for each matter."""
    folds = (
        f"{fold} {counted(n['molecules'], 'molecules')} ({counted(n['spectra'], 'spectra')})"
        for fold, n in audit["folds"].items()
    )
    lines = [", ".join(folds)]
    if audit["nearest_train_tanimoto"]["molecules"]:
        quantiles = audit["nearest_train_tanimoto"]["quantiles"]
        lines.append(
            f"Tanimoto of test molecules to the nearest in train: median {quantiles['0.5']:.2f}, "
            f"5% to 95% {quantiles['0.05']:.2f} to {quantiles['0.95']:.2f}"
        )
    shared, alike = audit["shared"], audit["near_duplicates"]
    lines.append("train and test share " + ", ".join(f"{count:,} {name}" for name, count in shared.items()))
    names = ("of one molecule", "of two molecules", "without a structure")
    counts = ", ".join(f"{alike[name]['test spectra']:,} {name}" for name in names)
    return [*lines, f"test spectra with a near-duplicate in train: {counts}"]


def class_at_level(path: str, level: int) -> str:
    """Return the name at a level (from 1) of a path such as ``Organic compounds; Benzenoids``; the last if shorter."""
    names = [name.strip() for name in path.split(";") if name.strip()] or [path]
    return names[min(level, len(names)) - 1]


def peak_digests(table: pa.Table) -> np.ndarray:
    """Return a number for each row of the store that equal peak lists share; uint64 of shape (n,)."""
    columns = SpectrumColumns.from_table(table.combine_chunks())
    digests = (
        hashlib.blake2b(columns.mz[a:b].tobytes() + columns.intensity[a:b].tobytes(), digest_size=8).digest()
        for a, b in zip(columns.offsets[:-1], columns.offsets[1:], strict=True)
    )
    return np.frombuffer(b"".join(digests), "<u8")


def near_duplicates_across(
    columns: SpectrumColumns, first: np.ndarray, second: np.ndarray, options: NearDuplicateOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of spectra of one polarity, one from each side, that are alike as ``options`` say.

    Candidates share a bucket of `ionbed.spectra.near_duplicates.bucket_keys`, under no condition but the polarity;
    each is then compared exactly.

    Parameters
    ----------
    first, second : int64 arrays
        Rows of ``columns``.

    Returns
    -------
    rows_first, rows_second : int64 arrays of shape (n_pairs,)
    similarity : float64 array of shape (n_pairs,)
    """
    keys = bucket_keys(columns, [b"%d" % sign for sign in columns.polarity], options)
    vectors = unit_vectors(columns, options.fragment_tolerance)
    found = []
    for key in keys.T:
        order = second[np.argsort(key[second], kind="stable")]
        start = np.searchsorted(key[order], key[first], "left")
        counts = np.searchsorted(key[order], key[first], "right") - start
        part = np.cumsum(counts) // _PAIRS_AT_ONCE
        for rows in np.split(np.arange(len(first)), np.flatnonzero(np.diff(part)) + 1):
            size = counts[rows]
            within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            a, b = np.repeat(first[rows], size), order[np.repeat(start[rows], size) + within]
            mz = columns.precursor_mz[a], columns.precursor_mz[b]
            near = np.abs(mz[0] - mz[1]) <= np.maximum(*mz) * (options.precursor_ppm * 1e-6)
            a, b = a[near], b[near]
            similarity = similarities_of_pairs(vectors.take(a), vectors.take(b), options.fragment_tolerance)
            alike = similarity >= options.similarity - _ROUNDING
            found.append(np.stack([a[alike], b[alike], similarity[alike]]))
    pairs = np.unique(np.concatenate([np.empty((3, 0)), *found], axis=1), axis=1)
    return pairs[0].astype(np.int64), pairs[1].astype(np.int64), pairs[2]


def _shared_molecules(split: Split, members: Mapping[str, set[str]]) -> list[dict[str, Any]]:
    if MOLECULES in split.shares:
        return []
    return [
        _leak(f"molecules in {first} and {second}", members[first] & members[second]) for first, second in _FOLD_PAIRS
    ]


def _shared_spectra(
    split: Split, table: pa.Table, folds: np.ndarray, duplicates: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return copies across the border of a split by spectrum, and near-duplicates of one molecule where none may be."""
    leaks = []
    if split.unit == "spectrum":
        digests, ids = peak_digests(table), table["spectrum_id"].to_pylist()
        for first, second in _FOLD_PAIRS:
            copies = np.flatnonzero((folds == second) & np.isin(digests, digests[folds == first]))
            leaks.append(_leak(f"spectra of {second} with a copy in {first}", [ids[row] for row in copies]))
    if MOLECULES not in split.shares:
        same = duplicates["of one molecule"]
        what = "test spectra with a near-duplicate of the same molecule in train"
        leaks.append(
            {"what": what, "count": same["test spectra"], "examples": [" ~ ".join(p[:2]) for p in same["examples"]]}
        )
    return leaks


def _broken_promise(
    split: Split,
    table: pa.Table,
    folds: np.ndarray,
    members: Mapping[str, set[str]],
    properties: Mapping[str, Mapping[str, set[str]]],
    smiles: Mapping[str, Sequence[str]],
    nearest: Mapping[str, tuple[float, str]],
) -> list[dict[str, Any]]:
    """Return what the kind of the split says that its folds do not share, and they do."""
    options = split.options
    not_tested = np.isin(folds, ("train", "validation"))
    ids = np.array(table["spectrum_id"].to_pylist(), object)
    if split.kind in ("formula", "scaffold"):
        of_block = properties[f"{split.kind}s"]
        return [
            _leak(
                f"{split.kind}s in {a} and {b}",
                {v or "acyclic" for v in _values(members[a], of_block) & _values(members[b], of_block)},
            )
            for a, b in _FOLD_PAIRS
        ]
    if split.kind == "mces":
        return [_leak("test molecules too near to one of train", _too_near(nearest, smiles, options["mces_distance"]))]
    if split.kind == "chemical-class":
        held_out, level = set(options["held_out"]), options["class_level"]
        paths = table["chemical_class"].to_pylist()
        rows = [
            row for row in np.flatnonzero(not_tested) if paths[row] and class_at_level(paths[row], level) in held_out
        ]
        return [_leak("spectra of a held-out class in train or validation", ids[rows])]
    if split.kind == "low-energy":
        low = table["collision_energy"].fill_null(0.0).to_numpy() <= options["max_energy"]
        return [_leak("spectra of low or unknown energy in train or validation", ids[not_tested & low])]
    if "held_out" in options:
        held_out = {None, *options["held_out"]}
        is_held_out = np.array([value in held_out for value in table[options["column"]].to_pylist()])
        return [
            _leak(
                f"spectra of a held-out or unknown {options['column']} in train or validation",
                ids[not_tested & is_held_out],
            )
        ]
    return []


def _too_near(
    nearest: Mapping[str, tuple[float, str]], smiles: Mapping[str, Sequence[str]], distance: float
) -> list[str]:
    """Return the test molecules, of those most alike to one of train, that are provably nearer to it than that."""
    from ..spectra.mces import is_nearer

    alike = sorted(nearest, key=lambda block: (-nearest[block][0], block))[:NUM_MCES_CHECKED]
    pairs = [(block, nearest[block][1]) for block in alike]
    return [f"{a} ~ {b}" for a, b in pairs if is_nearer(smiles[a][0], smiles[b][0], distance)]


def _duplicates(table: pa.Table, folds: np.ndarray, blocks: np.ndarray) -> dict[str, Any]:
    """Return how many test spectra are alike to one of train, by whether both are known to be of one molecule."""
    columns = SpectrumColumns.from_table(table.combine_chunks())
    options = NearDuplicateOptions()
    test, train, similarity = near_duplicates_across(
        columns, np.flatnonzero(folds == "test"), np.flatnonzero(folds == "train"), options
    )
    ids = table["spectrum_id"].to_pylist()
    labelled = (blocks[test] != "") & (blocks[train] != "")
    same = labelled & (blocks[test] == blocks[train])
    result: dict[str, Any] = {"similarity": options.similarity, "precursor_ppm": options.precursor_ppm}
    kinds = {"of one molecule": same, "of two molecules": labelled & ~same, "without a structure": ~labelled}
    for name, chosen in kinds.items():
        best = np.flatnonzero(chosen)[np.argsort(-similarity[chosen], kind="stable")][:NUM_EXAMPLES]
        result[name] = {
            "test spectra": len(np.unique(test[chosen])),
            "pairs": int(chosen.sum()),
            "examples": [[ids[test[i]], ids[train[i]], round(float(similarity[i]), 4)] for i in best],
        }
    for value in result.values():
        if isinstance(value, dict):
            value["examples"] = [[str(part) for part in example] for example in value["examples"]]
    return result


def _nearest_train(
    members: Mapping[str, set[str]], smiles: Mapping[str, Sequence[str]]
) -> dict[str, tuple[float, str]]:
    """Return the similarity of each test molecule to the nearest training molecule, and which that is."""
    test, train = (sorted(block for block in members[fold] if smiles[block]) for fold in ("test", "train"))
    if not test or not train:
        return {}
    fingerprints = morgan_fingerprints([smiles[block][0] for block in train]).astype(np.float32)
    result = {}
    for start in range(0, len(test), 512):
        part = test[start : start + 512]
        similarity = tanimoto_matrix(morgan_fingerprints([smiles[block][0] for block in part]), fingerprints)
        best = similarity.argmax(axis=1)
        result.update({b: (float(similarity[i, best[i]]), train[best[i]]) for i, b in enumerate(part)})
    return result


def _distribution(nearest: Mapping[str, tuple[float, str]]) -> dict[str, Any]:
    if not nearest:
        return {"molecules": 0}
    values = np.array([value for value, _ in nearest.values()])
    return {
        "molecules": len(values),
        "mean": round(float(values.mean()), 4),
        "quantiles": {str(q): round(float(np.quantile(values, q)), 4) for q in QUANTILES},
        "share from 0.85": round(float((values >= 0.85).mean()), 4),
    }


def _strata(table: pa.Table, folds: np.ndarray, blocks: np.ndarray) -> dict[str, dict[str, dict[str, int]]]:
    """Return the number of spectra by stratum, value and fold, the most frequent value first."""
    energy = table["collision_energy"].fill_null(float("nan")).to_numpy()
    borders = (0.0, *ENERGY_BINS)
    names = [f"{a:g}-{b:g} eV" for a, b in zip(borders, ENERGY_BINS, strict=False)] + [f"above {ENERGY_BINS[-1]:g} eV"]
    bins = np.digitize(energy, ENERGY_BINS, right=True)
    signs = {1: "positive", -1: "negative"}
    values = {
        "laboratory": table["laboratory"].to_pylist(),
        "instrument_type": table["instrument_type"].to_pylist(),
        "polarity": [signs.get(sign) for sign in table["polarity"].to_pylist()],
        "collision_energy": [None if np.isnan(e) else names[b] for e, b in zip(energy, bins, strict=True)],
        "chemical_class": [path and class_at_level(path, 2) for path in table["chemical_class"].to_pylist()],
        "structure": ["known" if block else None for block in blocks],
    }
    present = [fold for fold in (*FOLDS, EXCLUDED) if fold in FOLDS or np.any(folds == fold)]
    result = {}
    for name, column in values.items():
        text = np.array([value or "unknown" for value in column])
        distinct, number, counts = np.unique(text, return_inverse=True, return_counts=True)
        by_fold = {fold: np.bincount(number[folds == fold], minlength=len(distinct)) for fold in present}
        result[name] = {
            str(distinct[i]): {fold: int(by_fold[fold][i]) for fold in present}
            for i in np.argsort(-counts, kind="stable")
        }
    return result


def _smiles_of_blocks(table: pa.Table, blocks: np.ndarray) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {block: set() for block in np.unique(blocks).tolist() if block}
    for block, smiles in set(zip(blocks.tolist(), table["smiles"].to_pylist(), strict=True)):
        if block and smiles:
            found[block].add(smiles)
    return {block: sorted(texts) for block, texts in found.items()}


def _properties(smiles: Mapping[str, Sequence[str]], property_of: Callable[[str], str]) -> dict[str, set[str]]:
    return {block: {property_of(text) for text in texts} for block, texts in smiles.items()}


def _values(blocks: Iterable[str], of_block: Mapping[str, set[str]]) -> set[str]:
    return set().union(*(of_block[block] for block in blocks))


def _leak(what: str, evidence: Iterable[str]) -> dict[str, Any]:
    found = sorted(evidence)
    return {"what": what, "count": len(found), "examples": found[:NUM_EXAMPLES]}
