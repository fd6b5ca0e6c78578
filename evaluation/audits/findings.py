"""What an audit found: one sentence for the report, with the evidence; and which rows it takes the verdict from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..entries import Entry

SPLIT = "split"
"""What audits of the split are about."""

SIGNIFICANT = 0.001
"""p-value up to which an audit may fire: a report holds some fifty, and a clean one shall stay silent."""

SHARED_FOLDS, SHARED_SPECTRA, UNLABELLED_SPECTRA = (
    "leaks of the split",
    "spectra of the queries in the training fold",
    "unlabelled spectra alike to queries in the training fold",
)
CORPUS_STRUCTURES, CORPUS_SPECTRA = "structures of the queries in a corpus", "spectra of the queries in a corpus"
TRUTH_PLACE, SMILES_STYLE, BLIND_CLASSIFIER = (
    "place of the true candidate",
    "style of the SMILES",
    "structures told apart without a spectrum",
)
CANDIDATE_ORDER, SCORE_BY_PLACE, EQUAL_CANDIDATES = (
    "order of the candidates",
    "score by place in the list",
    "equal candidates",
)
MASKED, SWAPPED, LABEL_BLIND, ORACLE_USE, DENOMINATOR = (
    "spectrum masked",
    "spectrum swapped",
    "blindness to labels",
    "use of the truth",
    "denominator",
)
ROW_AUDITS = (
    CANDIDATE_ORDER, SCORE_BY_PLACE, EQUAL_CANDIDATES, MASKED, SWAPPED, LABEL_BLIND, ORACLE_USE, DENOMINATOR,
)  # fmt: skip
"""Audits that are about one row of the tables."""
CORPUS_AUDITS = (CORPUS_STRUCTURES, CORPUS_SPECTRA)
"""Audits that are about a corpus, and so about every row that was trained on it."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one audit.

    Attributes
    ----------
    audit : str
        What was looked for.
    about : str
        Label of the row, name of the question, 'split', or name of the corpus.
    passed : bool or None
        None where it could not be run.
    sentence : str
        What was found, or why nothing could be.
    evidence : mapping
        Numbers and examples, ready for JSON.
    """

    audit: str
    about: str
    passed: bool | None
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def findings_tree(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings for ``results.json``: those that failed first, then those that could not be run."""
    order = {False: 0, None: 1, True: 2}
    return [asdict(finding) for finding in sorted(findings, key=lambda finding: order[finding.passed])]


def void_reasons(findings: Sequence[Finding], entries: Sequence[Entry]) -> dict[str, str]:
    """Return why the verdicts of a row do not count, by its label, for the rows of which an audit failed.

    An audit of a corpus is one of every row whose ``trained_on`` names the corpus. Audits of a question or of the
    split are about all rows alike: they belong at the head of the report, and void no single row.
    """
    reasons: dict[str, str] = {}
    for finding in findings:
        if finding.passed is not False:
            continue
        for entry in entries:
            of_row = finding.audit in ROW_AUDITS and finding.about == entry.label
            of_corpus = finding.audit in CORPUS_AUDITS and finding.about in {c.name for c in entry.trained_on}
            if of_row or of_corpus:
                reasons.setdefault(entry.label, f"{finding.audit}: {finding.sentence}")
    return reasons


def sign_test_p(more: int, fewer: int) -> float:
    """Return the one-sided p-value of ``more`` against ``fewer`` discordant pairs (McNemar's test, exact)."""
    total = more + fewer
    ways = at_least = math.comb(total, more)
    for k in range(more, total):
        ways = ways * (total - k) // (k + 1)
        at_least += ways
    return at_least / 2**total


def percent(share: float) -> str:
    """Return a share as text: '7.3%'."""
    return f"{100 * share:.1f}%"
