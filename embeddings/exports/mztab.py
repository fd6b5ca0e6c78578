"""Hits as mzTab-M 2.0: molecules (SML), queries (SMF) and the hits of each (SME).

Hoffmann et al., Anal. Chem. 91 (2019) 3302-3310; ``mzTab_format_specification_2_0-M_release`` of HUPO-PSI. The summary
comes first in the file and is known last, so features and evidence wait in temporary files and molecules in a temporary
SQLite database; the system deletes all of them with the process, however it ends.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, TextIO

from ...spectra.adducts import normalise_adduct
from ...spectra.molecules import formula_mass_and_charge
from ...spectra.spectrum import Spectrum
from ..hit_table import SearchSummary
from .cells import decimal, one_line
from .mztab_metadata import (
    DATABASE_PREFIX,
    NULL,
    MsRun,
    metadata_lines,
    method_parameter,
    parameter,
    score_parameters,
    spectra_ref,
)
from .search_run import (
    Results,
    SearchRun,
    charge_of,
    confidence_level,
    field,
    hits_of,
    library_mz,
    may_be_the_molecule,
    note_of,
)

INCHIKEY_COLUMN = "opt_global_cv_MS:1002894_InChIKey"
SML_COLUMNS = (
    "SML_ID", "SMF_ID_REFS", "database_identifier", "chemical_formula", "smiles", "inchi", "chemical_name", "uri",
    "theoretical_neutral_mass", "adduct_ions", "reliability", "best_id_confidence_measure", "best_id_confidence_value",
)  # fmt: skip
SML_OPTIONS = (INCHIKEY_COLUMN, "opt_global_confidence", "opt_global_note")
SMF_COLUMNS = (
    "SMF_ID", "SME_ID_REFS", "SME_ID_REF_ambiguity_code", "adduct_ion", "isotopomer", "exp_mass_to_charge", "charge",
    "retention_time_in_seconds", "retention_time_in_seconds_start", "retention_time_in_seconds_end",
)  # fmt: skip
SMF_OPTIONS = ("opt_global_query_id", "opt_global_warnings", "opt_global_note")
SME_COLUMNS = (
    "SME_ID", "evidence_input_id", "database_identifier", "chemical_formula", "smiles", "inchi", "chemical_name", "uri",
    "derivatized_form", "adduct_ion", "exp_mass_to_charge", "charge", "theoretical_mass_to_charge", "spectra_ref",
    "identification_method", "ms_level", "id_confidence_measure[1]", "id_confidence_measure[2]", "rank",
)  # fmt: skip
SME_OPTIONS = (
    "opt_global_query_id", INCHIKEY_COLUMN, "opt_global_matched_peaks", "opt_global_precursor_error_ppm",
    "opt_global_mass_difference", "opt_global_difference_formula", "opt_global_collision_energy",
    "opt_global_instrument_type", "opt_global_license", "opt_global_predicted", "opt_global_reliability",
    "opt_global_confidence",
)  # fmt: skip

_ADDUCT = re.compile(r"\[\d*M([+-][\w\d]+)*\]\d*[+-]")
_UNIDENTIFIED = "5"
"""Level of what has a mass and no candidate that is likely."""

_RUN_HERE = "\x1f"
"""Marks where the abundances of a feature go, whose number is known last; no cell holds it."""

_TABLES = """
CREATE TABLE molecule (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE, score REAL, identifier TEXT, formula TEXT, smiles TEXT, name TEXT,
    mass TEXT, level TEXT, inchikey TEXT, confidence TEXT, note TEXT
);
CREATE TABLE feature (smf INTEGER, molecule INTEGER, run INTEGER, adduct TEXT);
"""
_BETTER = """
INSERT INTO molecule (key, score, identifier, formula, smiles, name, mass, level, inchikey, confidence, note)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    score = excluded.score, identifier = excluded.identifier, formula = excluded.formula, smiles = excluded.smiles,
    name = excluded.name, mass = excluded.mass, level = excluded.level, inchikey = excluded.inchikey,
    confidence = excluded.confidence
WHERE excluded.score > score OR score IS NULL
"""


def write_mztab(results: Iterable[Results], stream: TextIO, run: SearchRun) -> SearchSummary:
    """Write an mzTab-M file: every query is a feature, every hit an evidence, every best molecule a summary.

    Records that cannot be used as queries are told in comments at the end.
    """
    with ExitStack() as stack:
        features, evidence, unusable = (
            stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")) for _ in range(3)
        )
        database = stack.enter_context(closing(sqlite3.connect("", isolation_level=None)))  # on disk, without a name
        database.executescript(_TABLES)
        database.execute("BEGIN")
        collector = _Collector(run, features, evidence, unusable, database)
        for result in results:
            collector.add(result)
        database.execute("CREATE INDEX of_molecule ON feature (molecule, smf)")
        for spool in (features, evidence, unusable):
            spool.seek(0)
        ms_runs = list(collector.ms_runs.values()) or [MsRun(1, run.queries)]
        for line in metadata_lines(run, ms_runs):
            stream.write(line + "\n")
        _write_molecules(stream, run, len(ms_runs), database)
        _write_section(stream, "SFH", (*SMF_COLUMNS, *_abundances(len(ms_runs)), *SMF_OPTIONS))
        for line in features:
            stream.write(_with_abundances(line, len(ms_runs)))
        _write_section(stream, "SEH", (*SME_COLUMNS, *SME_OPTIONS))
        stream.writelines(evidence)
        stream.write("\n")
        stream.writelines(unusable)
        return collector.summary


class _Collector:
    """Writes features and evidence as queries come, and keeps what the summary and the metadata need."""

    def __init__(
        self, run: SearchRun, features: TextIO, evidence: TextIO, unusable: TextIO, database: sqlite3.Connection
    ) -> None:
        self.summary = SearchSummary()
        self.ms_runs: dict[str | None, MsRun] = {}
        self._run = run
        self._features, self._evidence, self._unusable = features, evidence, unusable
        self._database = database
        self._num_features = self._num_evidence = 0
        self._method = method_parameter(run)

    def add(self, result: Results) -> None:
        self.summary.count_query(result.rows)
        query = result.spectrum
        if query is None:
            words = f"{one_line(result.query_id)}: {one_line(note_of(result))}"
            self._unusable.write(f"COM\tnot searched: {words}\n")
            return
        hits = hits_of(result)
        best = hits[0] if hits else None
        charge = charge_of(query, best)
        ms_run = self._ms_run(query)
        ms_run.num_queries += 1
        if polarity := query.polarity or (0 if charge is None else (1 if charge > 0 else -1)):
            ms_run.polarities.add(polarity)
        self._num_features += 1
        reference = spectra_ref(ms_run, result, query, self._run)
        first = self._num_evidence + 1
        for hit, rank in zip(hits, _ranks(hits), strict=True):
            self._num_evidence += 1
            self._write_evidence(result, query, hit, rank, reference, abs(charge or 1))
        adduct = _adduct(query.adduct)
        if adduct is None and best is not None and may_be_the_molecule(best):
            adduct = _adduct(field(best, "adduct"))
        self._write_feature(result, query, hits, first, adduct, abs(charge or 1), ms_run)
        self._keep_molecule(result, best, adduct, ms_run)

    def _ms_run(self, query: Spectrum) -> MsRun:
        name = self._run.queries if self._run.from_store else query.source_file or self._run.queries
        if name not in self.ms_runs:
            self.ms_runs[name] = MsRun(len(self.ms_runs) + 1, name)
        return self.ms_runs[name]

    def _write_evidence(
        self, result: Results, query: Spectrum, hit: Any, rank: int, reference: str, charge: int
    ) -> None:
        cells = (
            self._num_evidence, reference, _identifier(hit), field(hit, "formula"), field(hit, "smiles"), None,
            field(hit, "name"), None, None, _adduct(field(hit, "adduct")), decimal(query.precursor_mz, 6), charge,
            decimal(library_mz(hit), 6) or "NaN", reference, self._method,
            parameter("MS", "MS:1000511", "ms level", str(query.ms_level or 2)),
            decimal(field(hit, "score"), 6), decimal(field(hit, "probability"), 4), rank,
            result.query_id, field(hit, "inchikey"), field(hit, "matched_peaks"),
            decimal(field(hit, "precursor_error_ppm"), 4), decimal(field(hit, "mass_difference"), 5),
            field(hit, "difference_formula"), decimal(field(hit, "collision_energy"), 4),
            field(hit, "instrument_type"), field(hit, "license"), _truth(field(hit, "predicted")),
            confidence_level(hit), field(hit, "confidence"),
        )  # fmt: skip
        self._evidence.write(_line("SME", cells))

    def _write_feature(
        self, result: Results, query: Spectrum, hits: Sequence[Any], first: int, adduct: str | None, charge: int,
        ms_run: MsRun,
    ) -> None:  # fmt: skip
        ambiguity = None
        if len(hits) > 1:
            ambiguity = 2 if len({_molecule_key(hit) for hit in hits}) == 1 else 1
        before = (
            self._num_features, "|".join(str(first + place) for place in range(len(hits))), ambiguity, adduct, None,
            decimal(query.precursor_mz, 6), charge, decimal(query.retention_time, 3), None, None,
        )  # fmt: skip
        warnings = field(result.rows[0], "warnings") if result.rows else None
        after = (result.query_id, warnings, note_of(result))
        line = f"{_line('SMF', before).rstrip(chr(10))}\t{ms_run.number}{_RUN_HERE}{_line('', after)}"
        self._features.write(line)

    def _keep_molecule(self, result: Results, best: Any, adduct: str | None, ms_run: MsRun) -> None:
        if best is None or not may_be_the_molecule(best):
            key = f"feature {self._num_features}"
            level, name, told = _UNIDENTIFIED, None, None
            if best is not None:
                level, told = confidence_level(best) or _UNIDENTIFIED, field(best, "confidence")
                if level != _UNIDENTIFIED and (known := field(best, "name")):
                    name = f"analogue of {known}"
            values: tuple[Any, ...] = (key, None, None, None, None, name, None, level, None, told, note_of(result))
        else:
            key = _molecule_key(best)
            formula = field(best, "formula")
            mass = formula_mass_and_charge(formula) if formula else None
            values = (
                key, field(best, "score"), _identifier(best), formula, field(best, "smiles"), field(best, "name"),
                decimal(mass[0], 6) if mass else None, confidence_level(best), field(best, "inchikey"),
                field(best, "confidence"), None,
            )  # fmt: skip
        self._database.execute(_BETTER, tuple(_text(value) if isinstance(value, str) else value for value in values))
        self._database.execute(
            "INSERT INTO feature SELECT ?, id, ?, ? FROM molecule WHERE key = ?",
            (self._num_features, ms_run.number, adduct, _text(key)),
        )


def _write_molecules(stream: TextIO, run: SearchRun, num_runs: int, database: sqlite3.Connection) -> None:
    per_variable = ("abundance_study_variable[1]", "abundance_variation_study_variable[1]")
    _write_section(stream, "SMH", (*SML_COLUMNS, *_abundances(num_runs), *per_variable, *SML_OPTIONS))
    measure = score_parameters(run)[0]
    columns = "score, identifier, formula, smiles, name, mass, level, inchikey, confidence, note"
    for number, *values in database.execute(f"SELECT id, {columns} FROM molecule ORDER BY id"):
        score, identifier, formula, smiles, name, mass, level, inchikey, confidence, note = values
        features = database.execute("SELECT smf, run, adduct FROM feature WHERE molecule = ? ORDER BY smf", (number,))
        references: list[str] = []
        counts = [0] * num_runs
        adducts: dict[str, None] = {}  # in the order of the features
        for smf, ms_run, adduct in features:
            references.append(str(smf))
            counts[ms_run - 1] += 1
            if adduct:
                adducts[adduct] = None
        present = [count for count in counts if count]
        cells = (
            number, "|".join(references), _in_list(identifier), _in_list(formula), _smiles_in_list(smiles), None,
            _in_list(name), None, mass, "|".join(adducts), level, measure if identifier else None, decimal(score, 6),
            *(count or None for count in counts), decimal(sum(present) / len(present), 6), None,
            inchikey, confidence, note,
        )  # fmt: skip
        stream.write(_line("SML", cells))


def _write_section(stream: TextIO, prefix: str, columns: Iterable[str]) -> None:
    stream.write("\n" + "\t".join((prefix, *columns)) + "\n")


def _abundances(num_runs: int) -> list[str]:
    return [f"abundance_assay[{number}]" for number in range(1, num_runs + 1)]


def _with_abundances(line: str, num_runs: int) -> str:
    """Return a feature with one spectrum in the assay of its run and nothing in the others."""
    before, _, after = line.partition(_RUN_HERE)
    before, _, run = before.rpartition("\t")
    counts = [NULL] * num_runs
    counts[int(run) - 1] = "1"
    return "\t".join((before, *counts)) + after


def _line(prefix: str, cells: Iterable[object]) -> str:
    return "\t".join((prefix, *(_text(cell) or NULL for cell in cells))) + "\n"


def _text(value: object) -> str:
    return one_line(value)


def _truth(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _in_list(text: str | None) -> str | None:
    """Return text for a column of lists, where a bar would start the next."""
    return text.replace("|", "/") if text else text


def _smiles_in_list(text: str | None) -> str | None:
    """Return a SMILES without its extension (``|...|``), which a column of lists cannot hold."""
    return _in_list(text.split(" ")[0]) if text else text


def _identifier(hit: Any) -> str:
    identifier = one_line(field(hit, "library_id")).replace("|", "%7C")
    return f"{DATABASE_PREFIX}:{identifier or NULL}"


def _molecule_key(hit: Any) -> str:
    """Return what tells molecules apart: the InChIKey without stereochemistry, or the best that there is."""
    if key := field(hit, "inchikey"):
        return f"inchikey {str(key)[:14]}"
    for name in ("smiles", "name", "library_id"):
        if value := one_line(field(hit, name)):
            return f"{name} {value}"
    return f"row {field(hit, 'row')}"


def _adduct(text: str | None) -> str | None:
    """Return an adduct in the form that mzTab-M knows, None where it has none."""
    if text and _ADDUCT.fullmatch(text):
        return text
    adduct = normalise_adduct(text)
    return adduct.name if adduct is not None and _ADDUCT.fullmatch(adduct.name) else None


def _ranks(hits: Sequence[Any]) -> Iterator[int]:
    """Yield the rank of each hit; equal scores, as written, share the best of theirs."""
    rank, last = 0, None
    for place, hit in enumerate(hits, 1):
        score = decimal(field(hit, "score"), 6)
        if score != last or not score:
            rank, last = place, score
        yield rank
