"""Hits in the columns of a GNPS library search, for Cytoscape and for programs that read GNPS results.

The columns and their order are those of the table DB_result of GNPS (``getGNPS_library_annotations.py`` of the GNPS
workflows); what ionbed adds stands behind them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TextIO

from ...spectra.adducts import normalise_adduct
from ...spectra.molecules import formula_mass_and_charge
from ..hit_table import SearchSummary
from .cells import decimal, one_line
from .search_run import Results, SearchRun, charge_of, field, hits_of, library_mz

COLUMNS = (
    "SpectrumID", "Compound_Name", "Ion_Source", "Instrument", "Compound_Source", "PI", "Data_Collector", "Adduct",
    "Precursor_MZ", "ExactMass", "Charge", "CAS_Number", "Pubmed_ID", "Smiles", "INCHI", "INCHI_AUX", "Library_Class",
    "IonMode", "UpdateWorkflowName", "LibraryQualityString", "#Scan#", "SpectrumFile", "LibraryName", "MQScore",
    "Organism", "TIC_Query", "RT_Query", "MZErrorPPM", "SharedPeaks", "MassDiff", "LibMZ", "SpecMZ", "SpecCharge",
    "FileScanUniqueID", "NumberHits", "tags", "MoleculeExplorerDatasets", "MoleculeExplorerFiles", "molecular_formula",
    "InChIKey", "InChIKey-Planar", "superclass", "class", "subclass", "npclassifier_superclass", "npclassifier_class",
    "npclassifier_pathway",
)  # fmt: skip
"""Columns of GNPS, in its order."""

OWN_COLUMNS = ("query_id", "rank", "probability", "difference_formula", "confidence", "warnings", "license")
"""Columns that GNPS does not have."""

UNKNOWN = "N/A"
"""As GNPS writes what is unknown."""

ION_SOURCES = frozenset({"ESI", "NSI", "APCI", "APPI", "MALDI", "DESI", "DART", "EI", "CI", "FAB", "FD", "FI"})
"""Ion sources that an instrument type may name (``LC-ESI-QFT``)."""

_SCAN = re.compile(r"(?:^|\bscans?\s*=\s*)(\d+)$|\bscan=(\d+)\b", re.IGNORECASE)
_ION_MODES = {1: "Positive", -1: "Negative"}


def write_gnps(results: Iterable[Results], stream: TextIO, run: SearchRun) -> SearchSummary:
    """Write one line for each hit; as in GNPS, a query without a hit has none."""
    summary = SearchSummary()
    stream.write("\t".join((*COLUMNS, *OWN_COLUMNS)) + "\n")
    for number, result in enumerate(results, 1):
        summary.count_query(result.rows)
        hits = hits_of(result)
        for hit in hits:
            cells = _cells(result, hit, len(hits), number, run)
            line = [UNKNOWN if (cell := cells.get(name)) is None else _text(cell) or UNKNOWN for name in COLUMNS]
            line += [_text(field(hit, name)) for name in ("query_id", "rank")]
            line.append(decimal(field(hit, "probability"), 4))
            line += [_text(field(hit, name)) for name in OWN_COLUMNS[3:]]
            stream.write("\t".join(line) + "\n")
    return summary


def scan_number(result: Results, number: int) -> int:
    """Return the scan that a query's id names, or else the place of its record in the file, as GNPS counts.

    Parameters
    ----------
    result : QueryResult
    number : int
        1-based place among the queries, for what has no place in a file.
    """
    native_id = "" if result.spectrum is None else one_line(result.spectrum.native_id)
    if found := _SCAN.search(native_id):
        return int(found[1] or found[2])
    return result.position if result.position is not None else number


def _text(value: object) -> str:
    """Return a cell: without tabs and line ends, and without the quotes that spreadsheets would take for theirs."""
    return one_line(value).replace('"', "''")


def _cells(result: Results, hit: Any, num_hits: int, number: int, run: SearchRun) -> dict[str, object]:
    query = result.spectrum
    assert query is not None, "a hit has a query with peaks"
    adduct = normalise_adduct(field(hit, "adduct"))
    mz = library_mz(hit)
    mass = formula_mass_and_charge(hit.formula) if hit.formula else None
    key = field(hit, "inchikey")
    file = query.source_file or run.queries or "queries"
    scan = scan_number(result, number)
    charge = charge_of(query, None)
    return {
        "SpectrumID": field(hit, "library_id"),
        "Compound_Name": field(hit, "name"),
        "Ion_Source": _ion_source(field(hit, "instrument_type")),
        "Instrument": field(hit, "instrument_type"),
        "Adduct": field(hit, "adduct"),
        "Precursor_MZ": decimal(mz, 6),
        "ExactMass": decimal(mass[0], 6) if mass else "",
        "Charge": None if adduct is None else abs(adduct.charge),
        "Smiles": field(hit, "smiles"),
        "INCHI_AUX": key,
        "LibraryQualityString": "Insilico" if field(hit, "predicted") else "",
        "IonMode": None if adduct is None else _ION_MODES[adduct.polarity],
        "#Scan#": scan,
        "SpectrumFile": file,
        "LibraryName": run.library,
        "MQScore": decimal(field(hit, "score"), 6),
        "RT_Query": decimal(query.retention_time, 3),
        "MZErrorPPM": decimal(field(hit, "precursor_error_ppm"), 4),
        "SharedPeaks": field(hit, "matched_peaks"),
        "MassDiff": decimal(None if mz is None else query.precursor_mz - mz, 6),
        "LibMZ": decimal(mz, 6),
        "SpecMZ": decimal(query.precursor_mz, 6),
        "SpecCharge": 0 if charge is None else abs(charge),
        "FileScanUniqueID": f"{file}{scan}",
        "NumberHits": num_hits,
        "molecular_formula": field(hit, "formula"),
        "InChIKey": key,
        "InChIKey-Planar": None if key is None else str(key)[:14],
    }


def _ion_source(instrument_type: str | None) -> str:
    words = re.split(r"[^A-Za-z]+", instrument_type or "")
    return next((word.upper() for word in words if word.upper() in ION_SOURCES), "")
