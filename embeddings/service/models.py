"""What goes over HTTP, as pydantic models: the requests, the answers and the errors of the OpenAPI document."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..peak_matches import TOLERANCE_DA

Peak = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2, max_length=2)]
"""m/z in Da per charge, and intensity on any scale."""
Text = Annotated[str, Field(max_length=200)]
Texts = Annotated[list[Text], Field(max_length=100)]
Mz = Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False, description="In Da per charge.")]
Energy = Annotated[float, Field(ge=0, lt=1e6, allow_inf_nan=False, description="In eV.")]

Mode = Literal["identity", "open"]
Score = Literal["cosine", "fused", "predicted"]
Polarity = Literal[-1, 1]
Format = Literal["json", "tsv", "gnps", "mztab", "jsonl", "mgf", "msp"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]

GENERATION_DIGITS = 16
Generation = Annotated[
    str,
    Field(
        pattern=f"^[0-9a-f]{{{GENERATION_DIGITS}}}$",
        description="The index.generation of the answer that the row is of; of a row with another number now: 410.",
    ),
]


class _Request(BaseModel):
    """A body whose unknown keys are errors: a misspelt option would be left out in silence."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FilterModel(_Request):
    """Which library spectra may be hits; an empty list stands for all."""

    polarity: Polarity | None = None
    adducts: Texts = []
    instrument_types: Texts = []
    energy: Annotated[list[Energy], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="Least and largest collision energy, in eV."
    )
    formulas: Texts = []
    licenses: Texts = []

    @field_validator("energy")
    @classmethod
    def _ascending(cls, energy: list[float] | None) -> list[float] | None:
        if energy is not None and energy[0] > energy[1]:
            raise ValueError("the least energy is above the largest")
        return energy


class OptionsModel(_Request):
    """How a search is done; the same for every way to ask."""

    k: int = Field(
        default=10, ge=1, le=1_000_000, description="Hits per query, at most; /api/info says how many one may ask."
    )
    mode: Mode = Field(
        default="identity", description="'identity': within a precursor window; 'open': of any precursor m/z."
    )
    precursor_ppm: float | None = Field(
        default=None,
        gt=0,
        lt=1e6,
        allow_inf_nan=False,
        description="Half-width of the window in ppm of the library's precursor m/z; 10 where no window is given.",
    )
    precursor_da: float | None = Field(
        default=None, gt=0, le=1e6, allow_inf_nan=False, description="Half-width of the window in Da, instead of ppm."
    )
    score: Score | None = Field(
        default=None, description="By which hits are ranked; /api/info lists those that this index has."
    )
    formula: Text | None = Field(
        default=None, description="Of an index of structures: candidates of this formula; 'query': of each query's own."
    )
    filters: FilterModel = FilterModel()

    @model_validator(mode="after")
    def _one_window(self) -> OptionsModel:
        if self.precursor_ppm is not None and self.precursor_da is not None:
            raise ValueError("precursor_ppm and precursor_da exclude each other; give one")
        if self.mode == "open" and not (self.precursor_ppm is None and self.precursor_da is None):
            raise ValueError("an open search has no precursor window; leave precursor_ppm and precursor_da out")
        return self


class SpectrumModel(_Request):
    """A peak list and what is known of its precursor."""

    precursor_mz: Mz
    peaks: list[Peak] = Field(min_length=1, max_length=1_000_000, description="[[m/z, intensity], ...], in any order.")
    charge: Annotated[int, Field(ge=-100, le=100)] | None = Field(
        default=None, description="Negative in negative mode; 1 and more say how many, and the polarity of which sign."
    )
    polarity: Polarity | None = None
    adduct: Text | None = Field(default=None, description="For example [M+H]+.")
    collision_energy: Energy | None = None
    name: Text | None = None


class PeaksRequest(SpectrumModel, OptionsModel):
    """A search by a peak list."""


class UsiRequest(OptionsModel):
    """A search by a Universal Spectrum Identifier (Deutsch et al., Nat. Methods 18 (2021) 768-770)."""

    usi: Annotated[str, Field(max_length=500, pattern=r"^mzspec:[!-~]+$")]


class MirrorRequest(_Request):
    """A query beside a library spectrum."""

    precursor_mz: Mz
    charge: Annotated[int, Field(ge=-100, le=100)] | None = None
    peaks: list[Peak] = Field(min_length=1, max_length=1_000_000)
    row: int = Field(ge=0, le=2**53)
    generation: Generation | None = None
    tolerance_da: float = Field(
        default=TOLERANCE_DA, gt=0, le=1, allow_inf_nan=False, description="Of two peaks that match, in Da."
    )


class ErrorModel(BaseModel):
    """What every answer other than 2xx holds."""

    error: str = Field(description="One line: what, where, how to mend it.")


class SpectrumHit(BaseModel):
    """A library spectrum found for a query, a line of the table of hits of 'ionbed search'."""

    query_id: str
    query_precursor_mz: float | None = None
    rank: int | None = None
    score: float | None = None
    probability: float | None = Field(
        default=None, description="That the molecule is the query's; null without calibration."
    )
    precursor_error_ppm: float | None = None
    mass_difference: float | None = Field(
        default=None, description="In Da, of the neutral molecules, query minus library."
    )
    difference_formula: str = ""
    matched_peaks: int | None = None
    name: str | None = None
    formula: str | None = None
    smiles: str | None = None
    inchikey: str | None = None
    library_id: str | None = None
    adduct: str | None = None
    collision_energy: float | None = Field(default=None, description="In eV.")
    instrument_type: str | None = None
    license: str | None = None
    predicted: bool | None = Field(default=None, description="Whether a program predicted the library spectrum.")
    confidence: str = ""
    warnings: str = ""
    note: str = ""
    score_name: str = Field(default="", description="What the score is: 'cosine' or 'fused'.")
    row: int | None = Field(default=None, description="Of the index: the number that /api/library/{row} takes.")


class StructureHit(BaseModel):
    """A structure found for a query."""

    query_id: str
    query_precursor_mz: float | None = None
    rank: int | None = None
    score: float | None = None
    id: str | None = None
    name: str | None = None
    smiles: str | None = None
    inchikey: str | None = None
    formula: str | None = None
    mass_error_ppm: float | None = None
    adduct: str | None = Field(default=None, description="As which the structure was compared with the precursor.")
    candidates: int | None = Field(default=None, description="Structures that the query was compared with.")
    note: str = ""
    score_name: str = ""
    probability: float | None = None
    confidence: str = ""
    warnings: str = ""
    row: int | None = Field(default=None, description="Of the index: the number that /api/library/{row} takes.")


class QueryModel(BaseModel):
    """A query as it was searched, and what was found; a record that cannot be used has a note that says why."""

    query_id: str
    precursor_mz: float | None = None
    charge: int | None = None
    polarity: int | None = None
    adduct: str | None = None
    collision_energy: float | None = None
    name: str | None = None
    formula: str | None = None
    smiles: str | None = Field(default=None, description="The structure that the file states, if any.")
    inchikey: str | None = None
    peaks: list[list[float]] = Field(default=[], description="Cleaned: ascending, the base peak 1.")
    note: str = Field(default="", description="Why there is no hit.")
    warnings: list[str] = Field(default=[], description="In what it lies outside of what the model was trained on.")
    hits: list[SpectrumHit] | list[StructureHit] = []


class IndexModel(BaseModel):
    """Which index answered."""

    kind: Literal["spectra", "structures"]
    size: int
    generation: str = Field(description="Of the numbers of its rows: other rows may have them in another generation.")
    model_hash: str
    ionbed_version: str | None = None


class SummaryModel(BaseModel):
    """What became of the queries: ``queries == with_hits + sum(without_hits.values())``."""

    queries: int
    with_hits: int
    without_hits: dict[str, int] = Field(description="Queries without a hit, by the reason.")
    seconds: float = Field(description="That the search took, its wait for the model included.")


class PageModel(BaseModel):
    """Which of the queries of a job an answer holds."""

    offset: int = Field(description="Of the first of them, from 0.")
    total: int = Field(description="Queries of all pages: of the job, or of those that have a hit.")


class SearchAnswer(BaseModel):
    """The hits of every query, or of a page of them."""

    index: IndexModel
    queries: list[QueryModel]
    summary: SummaryModel = Field(description="Of all queries, also where the answer is a page.")
    page: PageModel | None = None


class LibraryEntry(BaseModel):
    """What the index keeps of one row."""

    row: int
    kind: Literal["spectra", "structures"]
    precursor_mz: float | None = None
    peaks: list[list[float]] = Field(description="[[m/z, intensity], ...]; empty for a structure.")
    metadata: dict[str, Any] = Field(description="Every column that is known.")


class Match(BaseModel):
    """A peak of the query that goes with one of the library spectrum, by its m/z or by its neutral loss."""

    query_peak: int = Field(description="Place in the query's peaks, from 0.")
    library_peak: int
    query_mz: float
    library_mz: float
    difference_da: float = Field(description="Query minus library: of the m/z, or of the neutral losses.")


class MirrorAnswer(BaseModel):
    """Two spectra and which of their peaks match."""

    query: list[list[float]] = Field(description="Peaks as they were compared: cleaned, the base peak 1.")
    library: list[list[float]]
    query_precursor_mz: float
    library_precursor_mz: float
    shift_da: float = Field(description="Of the precursors, query minus library.")
    tolerance_da: float
    fragments: list[Match]
    losses: list[Match] = Field(description="Fragments that match shifted by ``shift_da``, and not as they are.")


class JobModel(BaseModel):
    """How far a batch job is."""

    id: str
    state: JobState
    queries: int | None = Field(default=None, description="In all; null while the file is read.")
    done: int = Field(description="Queries that were searched.")
    error: str | None = None
    seconds: float = Field(description="Since it was begun; of a finished one, that it took.")
    expires_in: float | None = Field(default=None, description="In s, until a finished job is forgotten.")


class Limits(BaseModel):
    """What one request may ask."""

    upload_bytes: int
    unpacked_bytes: int
    spectra: int
    job_spectra: int
    job_hits: int
    peaks: int
    k: int
    smiles_length: int
    requests: int
    seconds: float
    jobs: int
    job_kept_seconds: float


class InfoModel(BaseModel):
    """The index, and what the service does."""

    name: str = "ionbed"
    version: str
    index: IndexModel
    scores: list[str] = Field(description="By which hits can be ranked.")
    default_score: str
    filters: bool = Field(description="Whether searches can be filtered.")
    filter_values: dict[str, list[str]] = Field(description="What can be chosen from, the most frequent first.")
    calibrated: bool = Field(description="Whether hits have probabilities.")
    usi: bool = Field(description="Whether spectra are fetched by USI.")
    formats: list[str]
    limits: Limits
    api_key: bool = Field(description="Whether requests need a key.")


class ExampleModel(BaseModel):
    """A query that is in the index itself, in the words of POST /api/search/peaks."""

    precursor_mz: float
    charge: int | None = None
    polarity: int | None = None
    adduct: str | None = None
    collision_energy: float | None = None
    name: str | None = None
    peaks: list[list[float]]


class HealthModel(BaseModel):
    """Whether the service is alive, or ready for requests."""

    status: Literal["live", "ready"]


class ReadyModel(HealthModel):
    """Whether the service is ready, and with which state of its index."""

    index: Literal["current", "outdated"] = Field(
        description="'outdated': the index was changed, and its new state cannot be served; the log says why."
    )


def finite(value: float | None) -> float | None:
    """Return ``value``, None where JSON has no word for it."""
    return None if value is None or not math.isfinite(value) else float(value)
