"""Where a row can be trusted, in words: at which collision energies it is above chance, and above the best look-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..strata import NAMES
from ..trust import LOOKUP, RANDOM
from .table import number

UNITS = {"collision_energy": " eV", "precursor_mz": " Da", "spectral_entropy": " nats"}
"""Behind a number, where its name does not say it."""


def trust_sentences(label: str, trust: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each number by which the queries of the row ``label`` were told apart.

    Parameters
    ----------
    trust : mapping
        As `ionbed.evaluation.trust.trust_tree` returns it.
    """
    return [_sentence(label, trust, name, found) for name, found in trust["by"].items() if found["bins"]]


def range_words(name: str, found: Mapping[str, Any], bins: Sequence[Mapping[str, Any]]) -> str:
    """Return where a range lies among ``bins``, such as 'from 20 to 45 eV'; 'below 20 eV' at an end."""
    unit = UNITS.get(name, "")
    is_first, is_last = found["from"] == bins[0]["from"], found["to"] == bins[-1]["to"]
    if is_first and is_last:
        return f"throughout ({found['from']:.4g} to {found['to']:.4g}{unit})"
    if is_first:
        return f"below {found['to']:.4g}{unit}"
    if is_last:
        return f"from {found['from']:.4g}{unit} on"
    return f"from {found['from']:.4g} to {found['to']:.4g}{unit}"


def _sentence(label: str, trust: Mapping[str, Any], name: str, found: Mapping[str, Any]) -> str:
    metric = trust["metric"]
    parts = [f"{metric} of '{label}' is {_compared(name, found, RANDOM, 'chance')}"]
    if trust["against"] is not None:
        lookup = f"the best look-up ('{trust['against']}')"
        parts.append(f"it is {_compared(name, found, LOOKUP, lookup)}")
    if found["unknown"] is not None:
        unknown = found["unknown"]
        verdict = {"beats": "above", "loses": "below"}.get(unknown["above"][RANDOM]["verdict"], "not told apart from")
        parts.append(
            f"for {unknown['queries']:,} queries it is not known: {number(unknown['value'])}, {verdict} chance "
            f"({unknown[RANDOM]:.3f})"
        )
    return f"By {NAMES[name]}: {'; '.join(parts)}."


def _compared(name: str, found: Mapping[str, Any], role: str, other: str) -> str:
    """Return where the row is above, below and not told apart from ``other``."""
    bins = found["bins"]
    words: list[str] = []
    for verdict, place in (("beats", "above"), ("loses", "below")):
        ranges = [
            f"{range_words(name, one, bins)} ({_figures(one, role)})"
            for one in found["ranges"][role]
            if one["verdict"] == verdict
        ]
        if ranges:
            listed = ranges[0] if len(ranges) == 1 else f"{', '.join(ranges[:-1])} and {ranges[-1]}"
            words.append(f"{place} {other if not words else 'it'} {listed}")
    if any(one["above"][role]["verdict"] == "unresolved" for one in bins):
        words.append("not told apart from it elsewhere" if words else f"nowhere told apart from {other}")
    return ", ".join(words)


def _figures(found: Mapping[str, Any], role: str) -> str:
    if role == RANDOM:
        return f"{number(found['value'])} where guessing gives {found[RANDOM]:.3f}"
    return f"by {number(found['above'][role]['estimate'], signed=True)}"
