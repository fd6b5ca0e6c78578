"""What the licences of the training data ask of the weights: the licence that a model card names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

NOT_STATED: Final = "not stated"
"""Stands for the licence of spectra that came without one."""

ATTRIBUTION, SHARE_ALIKE, NON_COMMERCIAL, NO_DERIVATIVES = (
    "attribution", "share-alike", "non-commercial", "no derivatives",
)  # fmt: skip

RULE: Final = (
    "The licence of the weights is the strictest of those of all data that they were trained on, as if they were an "
    "adaptation of these: CC BY-NC-SA before CC BY-NC, CC BY-SA, CC BY and CC0. It is 'other' where no licence "
    "satisfies all of them (share-alike with non-commercial), where one allows no derivatives, and where one is not "
    "known. This is a rule of caution, no legal advice."
)

_OTHERS: Final = {
    "apache-2.0": {ATTRIBUTION},
    "bsd-2-clause": {ATTRIBUTION},
    "bsd-3-clause": {ATTRIBUTION},
    "dl-de/by-2-0": {ATTRIBUTION},
    "dl-de/zero-2-0": set[str](),
    "mit": {ATTRIBUTION},
    "odc-by": {ATTRIBUTION},
    "odc-by-1.0": {ATTRIBUTION},
    "pddl": set[str](),
    "public-domain": set[str](),
}
"""What licences that are not Creative Commons ask, by their name in small letters and hyphens."""

_OWN_IDENTIFIERS: Final = {"apache-2.0", "bsd-2-clause", "bsd-3-clause", "mit"}
"""Those that the weights may carry themselves, where all data stand under the one."""

_CREATIVE_COMMONS: Final = re.compile(
    r"cc-?(0|zero|by(?:-(?:nc|sa|nd))*)(?:-v?\d(?:\.\d+)?(?:-(?:international|intl|unported|igo))?)?(?:-universal)?"
)
_CREATIVE_COMMONS_URL: Final = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/[\d.]+(?:/.*)?"
)
_ELEMENTS: Final = {"by": ATTRIBUTION, "sa": SHARE_ALIKE, "nc": NON_COMMERCIAL, "nd": NO_DERIVATIVES}


@dataclass(frozen=True)
class ModelLicense:
    """The licence of the weights.

    Attributes
    ----------
    identifier : str
        As the ``license`` of a Hugging Face model card names it, for example ``cc-by-sa-4.0``, or ``other``.
    reason : str
        Why, in one sentence.
    restricted : tuple of str
        The licences among those of the data that forbid commercial use or derivatives, or are not known.
    """

    identifier: str
    reason: str
    restricted: tuple[str, ...]


def conditions(name: str) -> frozenset[str] | None:
    """Return what a licence asks (attribution, share-alike, ...), or None where the licence is not known."""
    key = re.sub(r"[\s_-]+", "-", name.strip().lower())
    if found := _CREATIVE_COMMONS.fullmatch(key) or _CREATIVE_COMMONS_URL.fullmatch(key):
        elements = found[1].split("-")
        if elements in (["0"], ["zero"], ["mark"]):
            return frozenset()
        return frozenset(_ELEMENTS[e] for e in elements) if set(elements) <= set(_ELEMENTS) else None
    return frozenset(_OTHERS[key]) if key in _OTHERS else None


def model_license(names: Iterable[str]) -> ModelLicense:
    """Return the licence of weights trained on data under the licences ``names``, by `RULE`.

    Parameters
    ----------
    names : iterable of str
        As the records write them; `NOT_STATED` for those without one. Nothing at all counts as not stated.
    """
    given = sorted(set(names)) or [NOT_STATED]
    asked = {name: conditions(name) for name in given}
    of_kind = {kind: [n for n, c in asked.items() if c is not None and kind in c] for kind in _ELEMENTS.values()}
    unknown = [name for name, found in asked.items() if found is None]
    restricted = tuple(n for n in given if n in {*unknown, *of_kind[NON_COMMERCIAL], *of_kind[NO_DERIVATIVES]})
    free_to_sell = [n for n in of_kind[SHARE_ALIKE] if n not in of_kind[NON_COMMERCIAL]]
    if unknown:
        identifier, reason = "other", f"licences that are not known: {', '.join(unknown)}"
    elif of_kind[NO_DERIVATIVES]:
        identifier, reason = "other", f"no derivatives allowed: {', '.join(of_kind[NO_DERIVATIVES])}"
    elif free_to_sell and of_kind[NON_COMMERCIAL]:
        identifier = "other"
        reason = f"{', '.join(free_to_sell)} and {', '.join(of_kind[NON_COMMERCIAL])} cannot be satisfied at once"
    elif shared := [n for n in of_kind[SHARE_ALIKE] if n in of_kind[NON_COMMERCIAL]]:
        identifier, reason = "cc-by-nc-sa-4.0", f"the strictest is {', '.join(shared)}"
    elif of_kind[NON_COMMERCIAL]:
        identifier, reason = "cc-by-nc-4.0", f"the strictest is {', '.join(of_kind[NON_COMMERCIAL])}"
    elif of_kind[SHARE_ALIKE]:
        identifier, reason = "cc-by-sa-4.0", f"the strictest is {', '.join(of_kind[SHARE_ALIKE])}"
    elif len(given) == 1 and given[0].strip().lower() in _OWN_IDENTIFIERS:
        identifier, reason = given[0].strip().lower(), f"all data stand under {given[0]}"
    elif of_kind[ATTRIBUTION]:
        identifier, reason = "cc-by-4.0", f"the strictest asks for attribution: {', '.join(of_kind[ATTRIBUTION])}"
    else:
        identifier, reason = "cc0-1.0", f"none of them asks for anything: {', '.join(given)}"
    return ModelLicense(identifier, reason, restricted)
