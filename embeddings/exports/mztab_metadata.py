"""The metadata section (MTD) of an mzTab-M file: fields in the order that the specification asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from ... import __version__
from ...spectra.spectrum import Spectrum
from .cells import one_line
from .search_run import Results, SearchRun

NULL = "null"
DATABASE_PREFIX = "lib"
"""Of the identifiers of library spectra and structures."""

UNITS = {
    "opt_global_precursor_error_ppm": ("UO:0000169", "parts per million"),
    "opt_global_mass_difference": ("UO:0000221", "dalton"),
    "opt_global_collision_energy": ("UO:0000266", "electronvolt"),
}
"""Units of optional columns of the evidence."""

_VOCABULARIES = (
    ("MS", "PSI-MS controlled vocabulary", "4.1.258",
     "https://raw.githubusercontent.com/HUPO-PSI/psi-ms-CV/master/psi-ms.obo"),
    ("PRIDE", "PRIDE PRoteomics IDEntifications (PRIDE) database controlled vocabulary", "17.11.2022",
     "http://purl.obolibrary.org/obo/pride_cv.obo"),
    ("UO", "Unit Ontology", "releases/2026-07-31", "http://purl.obolibrary.org/obo/uo.obo"),
)  # fmt: skip
_POLARITIES = {
    1: ("MS:1000130", "positive scan"),
    -1: ("MS:1000129", "negative scan"),
}
_FORMATS = {
    "mgf": ("MS", "MS:1001062", "Mascot MGF format"),
    "mzml": ("MS", "MS:1000584", "mzML format"),
    "mzxml": ("MS", "MS:1000566", "ISB mzXML format"),
    "msp": ("MS", "MS:1002751", "NIST MSP format"),
}
_SUFFIX = re.compile(r"\.([A-Za-z0-9]+)(?:\.(?:gz|bz2|xz|zst))?$")
_SCORES = {
    "cosine": "cosine of the embeddings",
    "predicted": "spectral entropy similarity to predicted spectra",
    "fused": "cosine and look-ups of the peaks in one",
}


def parameter(label: str, accession: str, name: str, value: str = "") -> str:
    """Return ``[label, accession, name, value]``; without label and accession it is a user's parameter."""
    return f"[{label}, {accession}, {_in_parameter(name)}, {_in_parameter(value)}]"


def score_parameters(run: SearchRun) -> tuple[str, str]:
    """Return what the two confidence measures are: the score that ranks the hits, and the probability."""
    return (
        parameter("MS", "MS:1002890", "fragmentation score", _SCORES.get(run.score, run.score)),
        parameter("", "", "probability that the molecule of the hit is that of the query"),
    )


def method_parameter(run: SearchRun) -> str:
    """Return what kind of search found the hits."""
    if run.kind == "structures":
        return parameter("MS", "MS:1001083", "ms-ms search", "structures")
    return parameter("MS", "MS:1001031", "spectral library search", "ionbed")


@dataclass
class MsRun:
    """One file that queries came from.

    Attributes
    ----------
    number : int
        The n of ``ms_run[n]``.
    name : str or None
        Of the file.
    num_queries : int
    polarities : set of int
        +1 and -1, as far as the queries or their best hits tell.
    """

    number: int
    name: str | None
    num_queries: int = 0
    polarities: set[int] = field(default_factory=set)

    @property
    def is_mzml(self) -> bool:
        """Whether spectra have the ids of mzML."""
        return _suffix(self.name) == "mzml"


def spectra_ref(ms_run: MsRun, result: Results, spectrum: Spectrum, run: SearchRun) -> str:
    """Return the reference to a query's spectrum, in the way that its file counts or names spectra."""
    if run.from_store:
        reference = f"databasekey={_in_reference(spectrum.spectrum_id)}"
    elif ms_run.is_mzml and spectrum.native_id:
        reference = _in_reference(spectrum.native_id)
    else:
        place = result.position if result.position is not None else ms_run.num_queries
        reference = f"index={place - 1}"
    return f"ms_run[{ms_run.number}]:{reference}"


def metadata_lines(run: SearchRun, ms_runs: Sequence[MsRun]) -> Iterator[str]:
    """Yield the lines of the section, without their ends."""
    for name, value in _fields(run, ms_runs):
        yield f"MTD\t{name}\t{one_line(value) or NULL}"


def _fields(run: SearchRun, ms_runs: Sequence[MsRun]) -> Iterator[tuple[str, str]]:
    queries = run.queries or "queries"
    yield "mzTab-version", "2.0.0-M"
    yield "mzTab-ID", f"ionbed {queries}"
    yield "title", f"{queries}: hits in {run.library}"
    yield (
        "description",
        "MS/MS spectra searched in a library. Nothing was quantified: the abundance of a molecule is the number of "
        "spectra of which it is the best hit. Where a query and its hits state no charge, 1 is written.",
    )
    yield "software[1]", parameter("MS", "MS:1002878", "small molecule analysis software", f"ionbed {__version__}")
    for number, setting in enumerate(run.settings, 1):
        yield f"software[1]-setting[{number}]", setting
    yield "quantification_method", parameter("MS", "MS:1001836", "spectral counting quantitation analysis")
    for ms_run in ms_runs:
        yield from _ms_run_fields(run, ms_run)
    for ms_run in ms_runs:
        yield f"assay[{ms_run.number}]", ms_run.name or f"assay {ms_run.number}"
        yield f"assay[{ms_run.number}]-ms_run_ref", f"ms_run[{ms_run.number}]"
    yield "study_variable[1]", "undefined"
    yield "study_variable[1]-assay_refs", "|".join(f"assay[{ms_run.number}]" for ms_run in ms_runs)
    yield "study_variable[1]-description", "all queries"
    for number, values in enumerate(_VOCABULARIES, 1):
        for name, value in zip(("label", "full_name", "version", "uri"), values, strict=True):
            yield f"cv[{number}]-{name}", value
    yield "database[1]", parameter("", "", f"ionbed index {run.library}")
    yield "database[1]-prefix", DATABASE_PREFIX
    yield "database[1]-version", "Unknown"
    yield "database[1]-uri", run.library_uri or NULL
    unit = parameter("PRIDE", "PRIDE:0000330", "Arbitrary quantification unit", "number of spectra")
    yield "small_molecule-quantification_unit", unit
    yield "small_molecule_feature-quantification_unit", unit
    yield (
        "small_molecule-identification_reliability",
        parameter("MS", "MS:1002955", "hr-ms compound identification confidence level"),
    )
    for number, text in enumerate(score_parameters(run), 1):
        yield f"id_confidence_measure[{number}]", text
    for column, (accession, name) in UNITS.items():
        yield "colunit-small_molecule_evidence", f"{column}={parameter('UO', accession, name)}"


def _ms_run_fields(run: SearchRun, ms_run: MsRun) -> Iterator[tuple[str, str]]:
    prefix = f"ms_run[{ms_run.number}]"
    yield f"{prefix}-location", _location(run, ms_run)
    known = _FORMATS.get(_suffix(ms_run.name))
    if run.from_store:
        yield f"{prefix}-format", parameter("", "", "ionbed store")
        id_format = ("MS:1001532", "spectrum from database string nativeID format")
    else:
        yield f"{prefix}-format", parameter(*known) if known else parameter("", "", _suffix(ms_run.name) or "peak list")
        id_format = ("MS:1000774", "multiple peak list nativeID format")
        if ms_run.is_mzml:
            id_format = ("MS:1001530", "mzML unique identifier")
    yield f"{prefix}-id_format", parameter("MS", *id_format)
    for number, polarity in enumerate(sorted(ms_run.polarities or _POLARITIES, reverse=True), 1):
        yield f"{prefix}-scan_polarity[{number}]", parameter("MS", *_POLARITIES[polarity])


def _location(run: SearchRun, ms_run: MsRun) -> str:
    """Return the URI of the file: below that of its folder, or a fragment of that of its archive."""
    if run.queries_uri is None:
        return NULL
    if run.from_store or ms_run.name is None or ms_run.name == run.queries:
        return run.queries_uri
    within = ms_run.name.removeprefix(run.queries or "")
    if within.startswith("/"):
        return run.queries_uri + quote(within)
    return f"{run.queries_uri}#{quote(within.removeprefix('!'))}"


def _suffix(name: str | None) -> str:
    found = _SUFFIX.search(name or "")
    return found[1].lower() if found else ""


def _in_parameter(text: str) -> str:
    """Return a part of a parameter, in quotes where it has a character that parameters are made of."""
    text = one_line(text).replace('"', "''")
    return f'"{text}"' if re.search(r"[,|\[\]]", text) else text


def _in_reference(text: str) -> str:
    """Return an id within a list that is separated by bars."""
    return one_line(text).replace("|", "%7C")
