"""The queries as MGF or MSP, each with its best hit: name, structure, score and level, and which peaks match.

What is written of a molecule is of the best hit alone, and as ``LIBRARY_NAME``, ``LIBRARY_SMILES``... where it is not
likely the query's: an analogue, for example. What a query states of its own molecule is left out, but for its name
(``QUERY_NAME``), and so is a record that cannot be used: it has no spectrum.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from ...spectra.columns import SpectrumColumns
from ...spectra.spectrum import Spectrum
from ...spectra.writers import Entries, format_mgf, format_msp
from ..hit_table import SearchSummary
from ..peak_matches import match_peaks
from .cells import decimal, one_line
from .search_run import Results, SearchRun, charge_of, confidence_level, field, hits_of, may_be_the_molecule, note_of

RESULTS_AT_ONCE = 512
"""Whose library spectra are fetched together."""

UNMATCHED = "?"
"""Annotation of a peak without a match, as NIST writes it."""

_OF_THE_MOLECULE = ("name", "smiles", "inchikey", "formula")

Annotations = list[str]
"""One text for each peak of a query; none where there are no library peaks to compare it with."""


def write_annotated_mgf(results: Iterable[Results], stream: TextIO, run: SearchRun) -> SearchSummary:
    """Write one MGF record for each query; matched peaks are listed in ``MATCHED_PEAKS_MZ``.

    A third column of peaks is a charge in MGF, and ends the file in many readers.
    """

    def record(query: Spectrum, entries: Entries, annotations: Annotations) -> str:
        matched = [
            decimal(mz, 4) for mz, text in zip(query.mz.tolist(), annotations, strict=False) if text != UNMATCHED
        ]
        return format_mgf(query, more=[*entries, ("MATCHED_PEAKS_MZ", ",".join(matched) or None)])

    return _write(results, stream, run, record)


def write_annotated_msp(results: Iterable[Results], stream: TextIO, run: SearchRun) -> SearchSummary:
    """Write one MSP record for each query, every peak with what it matches in quotes."""

    def record(query: Spectrum, entries: Entries, annotations: Annotations) -> str:
        return format_msp(query, more=[(key.capitalize(), value) for key, value in entries], annotations=annotations)

    return _write(results, stream, run, record)


def _write(
    results: Iterable[Results],
    stream: TextIO,
    run: SearchRun,
    record: Callable[[Spectrum, Entries, Annotations], str],
) -> SearchSummary:
    summary = SearchSummary()
    remaining = iter(results)
    while block := list(itertools.islice(remaining, RESULTS_AT_ONCE)):
        for result, texts in zip(block, _annotations(block, run), strict=True):
            summary.count_query(result.rows)
            if result.spectrum is not None:
                stream.write(record(*_annotated(result, result.spectrum), texts))
    return summary


def _annotated(result: Results, query: Spectrum) -> tuple[Spectrum, list[tuple[str, object]]]:
    """Return the query as its best hit names it, and what else is to be told."""
    hits = hits_of(result)
    best = hits[0] if hits else None

    def of_best(name: str) -> Any:
        return None if best is None else field(best, name)

    named = best is not None and may_be_the_molecule(best)

    charge = charge_of(query, best if named else None)
    told = dataclasses.replace(
        query,
        spectrum_id=result.query_id,
        native_id=result.query_id,
        charge=charge,
        polarity=query.polarity or (None if charge is None else int(np.sign(charge))),
        adduct=query.adduct or (of_best("adduct") if named else None),
        name=of_best("name") if named else None,
        smiles=of_best("smiles") if named else None,
        inchikey=of_best("inchikey") if named else None,
        formula=of_best("formula") if named else None,
        chemical_class=None,
    )
    entries = [
        ("QUERY_NAME", query.name),
        ("SCORE", decimal(of_best("score"), 6) or None),
        ("PROBABILITY", decimal(of_best("probability"), 4) or None),
        ("CONFIDENCE_LEVEL", None if best is None else confidence_level(best)),
        ("CONFIDENCE", of_best("confidence")),
        ("LIBRARY_ID", of_best("library_id")),
        *((f"LIBRARY_{name.upper()}", None if named else of_best(name)) for name in _OF_THE_MOLECULE),
        ("LIBRARY_ADDUCT", of_best("adduct")),
        ("LIBRARY_LICENSE", of_best("license")),
        ("LIBRARY_PREDICTED", "true" if of_best("predicted") else None),
        ("PRECURSOR_ERROR_PPM", decimal(of_best("precursor_error_ppm"), 4) or None),
        ("MASS_DIFFERENCE", decimal(of_best("mass_difference"), 5) or None),
        ("DIFFERENCE_FORMULA", of_best("difference_formula")),
        ("MATCHED_PEAKS", of_best("matched_peaks")),
        ("WARNINGS", field(result.rows[0], "warnings") if result.rows else None),
        ("SEARCH_NOTE", note_of(result)),
    ]
    return told, [(key, value) for key, value in entries if one_line(value)]


def _annotations(block: Sequence[Results], run: SearchRun) -> Iterator[Annotations]:
    """Yield, for each query, one annotation per peak; none where there are no library peaks to match."""
    pairs = []
    for place, result in enumerate(block):
        hits = hits_of(result)
        row = field(hits[0], "row") if hits else None
        if result.spectrum is not None and row is not None:
            pairs.append((place, result.spectrum, row))
    texts: list[Annotations] = [[] for _ in block]
    if pairs and run.library_spectra is not None:
        library = run.library_spectra([row for _, _, row in pairs])
        queries = SpectrumColumns.from_spectra([query for _, query, _ in pairs])
        each = np.arange(len(pairs))
        matches = match_peaks(queries, SpectrumColumns.from_spectra(library), each, each)
        for (place, query, _), hit in zip(pairs, library, strict=True):
            texts[place] = [UNMATCHED] * (len(query) if len(hit) else 0)
        for pair, own, other, shifted in zip(
            matches.pair.tolist(), matches.query_peak.tolist(), matches.library_peak.tolist(),
            matches.is_shifted.tolist(), strict=True,
        ):  # fmt: skip
            mz = decimal(float(library[pair].mz[other]), 4)
            texts[pairs[pair][0]][own] = f"match {mz} shifted" if shifted else f"match {mz}"
    yield from texts
