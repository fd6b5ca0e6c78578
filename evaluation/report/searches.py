"""Single searches of the report: answers that were confident and wrong, and one query drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...spectra.spectrum import Spectrum
from ...spectra.store import spectra_from_table
from ..outcomes import TANIMOTO_AT_1, tanimoto_pairs
from .drawing import Drawing, svg_element
from .mirror import LOWER, MATCHED, UPPER, mirror_figure, spectrum_figure
from .structures import structure_svg

if TYPE_CHECKING:
    from ..candidates import Candidates
    from ..dataset import EvaluationData
    from ..measure import QuestionResult, RowResult

WIDTH_BESIDE_STRUCTURES = 7.0
"""Inches of a spectrum that has two structures at its side."""
NUM_FAILURES = 3
"""Wrong answers that are shown of each question."""


@dataclass(frozen=True)
class Search:
    """One query and its first hit.

    Attributes
    ----------
    query : int
        Row of the data.
    hit : int or None
        Row of the data; None where candidates are structures.
    true_molecule, hit_molecule : int
        Rows of the candidates.
    score, second : float
        Of the first hit, and of the next molecule (minus infinity where there is none).
    tanimoto : float
        Between the two molecules.
    answerable : bool
        Whether the query's molecule was among the candidates.
    """

    query: int
    hit: int | None
    true_molecule: int
    hit_molecule: int
    score: float
    second: float
    tanimoto: float
    answerable: bool


def row_to_show(result: QuestionResult) -> RowResult | None:
    """Return the row whose searches are shown: the best learned one, or the best look-up where there is none."""
    main = result.tree["main"]
    for kind in ("learned", "look-up"):
        rows = [row for row in result.rows if row.tree["kind"] == kind and main in row.tree["metrics"]]
        if rows:
            return max(rows, key=lambda row: row.tree["metrics"][main]["micro"]["value"])
    return None


def confident_failures(
    result: QuestionResult, row: RowResult, data: EvaluationData, molecules: Candidates, *, limit: int = NUM_FAILURES
) -> list[Search]:
    """Return the wrong answers of ``row`` with the highest scores, one of each molecule asked for.

    An answer is wrong where no best-scored candidate is the true molecule; in an analogue search, where the hit is less
    like it than a candidate drawn at random.
    """
    outcomes = row.outcomes
    assert outcomes is not None
    answered = (row.best >= 0) & np.isfinite(outcomes.best)
    if result.question.kind == "analogue":
        metric = outcomes.metrics[TANIMOTO_AT_1]
        wrong = answered & (metric.value < metric.random)
    else:
        wrong = answered & (outcomes.correct <= 0)
    places = np.flatnonzero(wrong)
    # Of equal scores the one further from its next: it had less reason to doubt.
    margin = np.full(len(outcomes.best), np.inf)
    has_next = np.isfinite(outcomes.best) & np.isfinite(outcomes.second)
    margin[has_next] = outcomes.best[has_next] - outcomes.second[has_next]
    found: list[Search] = []
    seen: set[int] = set()
    for place in places[np.lexsort((-margin[places], -outcomes.best[places]))]:
        search = search_at(result, row, int(place), data, molecules)
        if search.true_molecule in seen:
            continue
        seen.add(search.true_molecule)
        found.append(search)
        if len(found) == limit:
            break
    return found


def search_at(
    result: QuestionResult, row: RowResult, place: int, data: EvaluationData, molecules: Candidates
) -> Search:
    """Return the search of the query at ``place`` of the question, which has an answer."""
    found = result.question.found
    assert row.outcomes is not None
    query, candidate = int(found.queries[place]), int(found.candidate[row.best[place]])
    is_structure = result.question.kind == "retrieval"
    true_molecule = int(data.molecule[query])
    hit_molecule = candidate if is_structure else int(data.molecule[candidate])
    pair = np.array([true_molecule]), np.array([hit_molecule])
    return Search(
        query,
        None if is_structure else candidate,
        true_molecule,
        hit_molecule,
        float(row.outcomes.best[place]),
        float(row.outcomes.second[place]),
        float(tanimoto_pairs(molecules.fingerprint, *pair)[0]),
        bool(row.outcomes.table["answerable"][place].as_py()),
    )


def failure_drawings(result: QuestionResult, data: EvaluationData, molecules: Candidates) -> list[Drawing]:
    """Return a drawing of each of the most confident wrong answers of a ranked question."""
    row = None if result.question.kind == "pairs" else row_to_show(result)
    if row is None:
        return []
    drawings = []
    for number, search in enumerate(confident_failures(result, row, data, molecules), start=1):
        what = "Confident and wrong" if result.question.kind != "analogue" else "Confident and worse than guessing"
        caption = f"{what}, {number}: the first hit of '{row.tree['label']}' with score {search.score:.4g}"
        caption += f" (the next molecule: {search.second:.4g})" if np.isfinite(search.second) else ""
        caption += f"; Tanimoto similarity of the two molecules {search.tanimoto:.2f}."
        if not search.answerable and result.question.kind != "analogue":
            caption += " The query's molecule was not among the candidates."
        drawings.append(_draw(result.question.name, caption, search, data, molecules))
    return drawings


def random_search(
    results: Sequence[QuestionResult], data: EvaluationData, molecules: Candidates, *, seed: int
) -> Drawing | None:
    """Return a drawing of a query drawn with ``seed``, not chosen, and its first hit; library search comes first.

    None where no spectra were searched.
    """
    for kind in ("library", "analogue"):
        for result in results:
            row = row_to_show(result) if result.question.kind == kind else None
            if row is None or row.outcomes is None:
                continue
            answered = np.flatnonzero(row.best >= 0)
            if not len(answered):
                continue
            place = int(answered[np.random.default_rng(seed).integers(len(answered))])
            search = search_at(result, row, place, data, molecules)
            outcome = "the same molecule" if search.true_molecule == search.hit_molecule else "another molecule"
            caption = f"A query drawn at random (up) and its first hit by '{row.tree['label']}' (down): {outcome}."
            return _draw(result.question.name, caption, search, data, molecules)
    return None


def _draw(question: str, caption: str, search: Search, data: EvaluationData, molecules: Candidates) -> Drawing:
    key: tuple[tuple[str, str, str], ...]
    if search.hit is None:
        (query,) = _spectra(data, [search.query])
        figure, key = spectrum_figure(query), ((UPPER, "-", "peaks of the query"),)
    else:
        query, hit = _spectra(data, [search.query, search.hit])
        figure = mirror_figure(query, hit)
        key = (
            (MATCHED, "-", "peaks that match"),
            (UPPER, "-", "other peaks of the query (up)"),
            (LOWER, "-", "other peaks of the hit (down)"),
        )
    figure.set_figwidth(WIDTH_BESIDE_STRUCTURES)
    wanted = [(search.true_molecule, "the query's molecule")]
    if search.hit_molecule != search.true_molecule:
        wanted.append((search.hit_molecule, "the first hit"))
    drawn = [structure_svg(str(molecules.smiles[molecule]), legend) for molecule, legend in wanted]
    return Drawing(caption, (svg_element(figure), *(svg for svg in drawn if svg is not None)), key, question, wide=True)


def _spectra(data: EvaluationData, rows: list[int]) -> list[Spectrum]:
    return list(spectra_from_table(data.table.take(rows)))
