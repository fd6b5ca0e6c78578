"""What the queries have in common with the corpora that models were trained on: structures, and spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...artifacts import MANIFEST
from ...errors import InputError
from ...spectra.columns import SpectrumColumns
from ...spectra.molecule_files import read_molecules
from ...spectra.store import Store
from ..dataset import EvaluationData
from .findings import CORPUS_SPECTRA, CORPUS_STRUCTURES, Finding, percent
from .spectra_in_common import NUM_EXAMPLES, InCommon, examples, spectra_in_common, unlabelled_leak

_COLUMNS = ["spectrum_id", "inchikey", *SpectrumColumns.TABLE_COLUMNS]


def corpus_overlap(data: EvaluationData, queries: np.ndarray, corpora: Mapping[str, Path]) -> list[Finding]:
    """Look for the molecules and the spectra of the queries in corpora.

    No molecule (first InChIKey block) of a query may be in a corpus with its structure. No spectrum of a query may be
    in it without a structure as an exact copy; near-duplicates without a structure may be no more frequent than isomers
    make them (see `unlabelled_leak`).

    Parameters
    ----------
    queries : int64 array
        Rows of the data, whose molecules and spectra must not have been seen.
    corpora : mapping of name to Path
        A store written by ``ionbed prepare``, or a file of molecules; what models were trained on, and no more: not
        the folds that were held out.

    Raises
    ------
    InputError
        A corpus is neither a store nor a file of molecules.
    """
    asked = data.table.take(pa.array(queries)).select(_COLUMNS)
    background: InCommon | None = None
    findings = []
    for name, path in corpora.items():
        if not (Path(path) / MANIFEST).is_file():
            findings.append(_structures(name, data, queries, _blocks_of_file(Path(path))))
            text = "the corpus is a file of molecules, without spectra."
            findings.append(Finding(CORPUS_SPECTRA, name, None, text))
            continue
        if background is None:
            elsewhere = np.setdiff1d(np.arange(len(data)), queries)
            background = spectra_in_common(asked, data.table.take(pa.array(elsewhere)).select(_COLUMNS))
        store = Store(path)
        blocks = {key[:14] for key in store.table(["inchikey"])["inchikey"].to_pylist() if key}
        findings.append(_structures(name, data, queries, blocks))
        findings.append(_spectra(name, data, queries, asked, store, background))
    return findings


def _structures(name: str, data: EvaluationData, queries: np.ndarray, blocks: set[str]) -> Finding:
    molecules = np.unique(data.molecule[queries])
    shared = [str(block) for block in data.inchikey_block[molecules] if str(block) in blocks]
    evidence = {"molecules asked about": len(molecules), "of these in the corpus": len(shared)}
    if not blocks:
        return Finding(CORPUS_STRUCTURES, name, None, "the corpus names no structure.", evidence)
    sentence = (
        f"{len(shared):,} of {len(molecules):,} query molecules ({percent(len(shared) / max(len(molecules), 1))}) are "
        f"in the corpus, which names {len(blocks):,}."
    )
    return Finding(CORPUS_STRUCTURES, name, not shared, sentence, {**evidence, "examples": shared[:NUM_EXAMPLES]})


def _spectra(
    name: str, data: EvaluationData, queries: np.ndarray, asked: pa.Table, store: Store, background: InCommon
) -> Finding:
    parts, told, first = [], [], 0
    ids = np.array(asked["spectrum_id"].to_pylist(), object)
    for shard in store.shards:  # one at a time: a corpus may be larger than memory
        try:
            table = pq.read_table(shard, columns=_COLUMNS)
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{shard}: cannot be read ({reason}); run 'ionbed prepare' again") from None
        found = spectra_in_common(asked, table)
        told += examples(found, found.unknown, ids, np.array(table["spectrum_id"].to_pylist(), object))
        parts.append(found)
        first += len(table)
    whole = _joined(parts)
    leak: dict[str, Any] = unlabelled_leak(whole, background, data.molecule[queries])
    leak["spectra in the corpus"] = first
    leak["examples"] = told[:NUM_EXAMPLES]
    sentence = (
        f"{leak['molecules with an unlabelled near-duplicate']:,} of {leak['molecules']:,} query molecules have a "
        f"near-duplicate without a structure in the corpus ({leak['spectra with an unlabelled copy']:,} spectra an "
        f"exact copy); in the data, isomers alone give "
        f"{leak['molecules with a near-duplicate of another molecule in the data']:,}."
    )
    return Finding(CORPUS_SPECTRA, name, not leak["leaks"], sentence, leak)


def _joined(parts: Sequence[InCommon]) -> InCommon:
    return InCommon(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("query", "other", "exact", "same", "unknown")
        )
    )


def _blocks_of_file(path: Path) -> set[str]:
    from ...spectra.molecules import standardise

    if path.is_dir():
        raise InputError(f"{path}: is no store (it has no {MANIFEST}); name a store of 'ionbed prepare' or a .smi file")
    found = {
        molecule.inchikey[:14]
        for entry in read_molecules(path)
        if entry.smiles and (molecule := standardise(entry.smiles)) is not None
    }
    if not found:
        raise InputError(f"{path}: holds no structure that can be read; name a file of SMILES")
    return found
