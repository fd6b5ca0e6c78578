"""Audits of the split: what it promises, and spectra of the queries that stand in the training fold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ...finetune.split_audit import audit_split
from ...spectra.split import Split
from .findings import SHARED_FOLDS, SHARED_SPECTRA, SPLIT, UNLABELLED_SPECTRA, Finding, percent
from .spectra_in_common import examples, spectra_in_common, unlabelled_leak

TOLERATED_COPIES = 0.01
"""Share of the query spectra that may stand in the training fold under the name of another molecule: deposits that
were made twice under two names, which mislead a model more than they help it."""


def split_findings(split: Split, table: pa.Table, fold: str) -> list[Finding]:
    """Audit a split on the store that it divides.

    Parameters
    ----------
    table : pyarrow.Table
        All rows of the store, with the columns `ionbed.finetune.split_audit.AUDIT_COLUMNS`.
    fold : str
        Whose spectra are the queries.

    Raises
    ------
    InputError
        A spectrum or its molecule is not in the split.
    """
    return [_promise(split, table), *_spectra(split, table, fold)]


def _promise(split: Split, table: pa.Table) -> Finding:
    audit = audit_split(split, table)
    shared = audit["shared"]
    if audit["leaks"]:
        told = "; ".join(f"{leak['count']:,} {leak['what']}" for leak in audit["leaks"])
        sentence = f"the split leaks: {told}; make it anew with 'ionbed split'."
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in shared.items())
        sentence = f"the folds keep what the kind '{split.kind}' promises; train and test share {counts}."
    evidence = {name: audit[name] for name in ("folds", "shared", "nearest_train_tanimoto", "near_duplicates", "leaks")}
    return Finding(SHARED_FOLDS, SPLIT, not audit["leaks"], sentence, evidence)


def _spectra(split: Split, table: pa.Table, fold: str) -> list[Finding]:
    folds = split.fold_of_rows(table)
    labelled = np.array([bool(key) for key in table["inchikey"].to_pylist()])
    queries = table.take(pa.array(np.flatnonzero((folds == fold) & labelled)))
    train = table.take(pa.array(np.flatnonzero(folds == "train")))
    if not len(queries) or not len(train):
        why = f"the fold '{fold if not len(queries) else 'train'}' holds no spectra"
        return [Finding(audit, SPLIT, None, f"{why}.") for audit in (SHARED_SPECTRA, UNLABELLED_SPECTRA)]
    found = spectra_in_common(queries, train)
    ids = [np.array(part["spectrum_id"].to_pylist(), object) for part in (queries, train)]
    own = np.unique(found.query[found.same])
    copied = np.unique(found.query[found.exact & ~found.same & ~found.unknown])
    share = len(copied) / len(queries)
    passed = not len(own) and share <= TOLERATED_COPIES
    sentence = (
        f"{len(own):,} of {len(queries):,} query spectra have a near-duplicate of their own molecule in 'train', "
        f"{len(copied):,} ({percent(share)}) a copy under another name."
    )
    evidence = {
        "query spectra": len(queries),
        "with a near-duplicate of their molecule": len(own),
        "with a copy under another name": len(copied),
        "examples": examples(found, found.same, *ids) or examples(found, found.exact & ~found.unknown, *ids),
    }
    molecule = np.unique([key[:14] for key in queries["inchikey"].to_pylist()], return_inverse=True)[1]
    leak = unlabelled_leak(found, found, molecule)
    leak["examples"] = examples(found, found.unknown, *ids)
    alike = leak["molecules with an unlabelled near-duplicate"]
    text = (
        f"{alike:,} of {leak['molecules']:,} query molecules have a near-duplicate without a structure in 'train' "
        f"({leak['spectra with an unlabelled copy']:,} spectra an exact copy); isomers alone give "
        f"{leak['molecules with a near-duplicate of another molecule in the data']:,}."
    )
    return [
        Finding(SHARED_SPECTRA, SPLIT, passed, sentence, evidence),
        Finding(UNLABELLED_SPECTRA, SPLIT, not leak["leaks"], text, leak),
    ]
