"""A validator of mzTab-M 2.0 that knows nothing of the writer.

It follows ``mzTab_format_specification_2_0-M_release`` and the rules of level MUST of its mapping of
vocabularies (``mzTab_2_0-M_mapping.xml``); accessions and names are looked up in the PSI-MS vocabulary itself.
"""

from __future__ import annotations

import gzip
import re
from functools import lru_cache
from pathlib import Path

import psims.controlled_vocabulary.vendor as vendor

METADATA_ORDER = (
    "mzTab-version", "mzTab-ID", "title", "description", "sample_processing", "instrument", "software", "publication",
    "contact", "uri", "external_study_uri", "quantification_method", "sample", "ms_run", "assay", "study_variable",
    "custom", "cv", "database", "derivatization_agent", "small_molecule-quantification_unit",
    "small_molecule_feature-quantification_unit", "small_molecule-identification_reliability", "id_confidence_measure",
    "colunit-small_molecule", "colunit-small_molecule_feature", "colunit-small_molecule_evidence",
)  # fmt: skip
WITHIN = {
    "software": ("", "setting"),
    "ms_run": ("location", "instrument_ref", "format", "id_format", "fragmentation_method", "scan_polarity", "hash",
               "hash_method"),
    "assay": ("", "custom", "external_uri", "sample_ref", "ms_run_ref"),
    "study_variable": ("", "assay_refs", "average_function", "variation_function", "description", "factors"),
    "cv": ("label", "full_name", "version", "uri"),
    "database": ("", "prefix", "version", "uri"),
}  # fmt: skip
MANDATORY = (
    r"mzTab-version", r"mzTab-ID", r"software\[1\]", r"quantification_method", r"ms_run\[1\]-location",
    r"ms_run\[1\]-scan_polarity\[1\]", r"assay\[1\]", r"assay\[1\]-ms_run_ref", r"study_variable\[1\]",
    r"study_variable\[1\]-assay_refs", r"study_variable\[1\]-description", r"cv\[1\]-label", r"cv\[1\]-full_name",
    r"cv\[1\]-version", r"cv\[1\]-uri", r"database\[1\]", r"database\[1\]-prefix", r"database\[1\]-version",
    r"database\[1\]-uri", r"small_molecule-quantification_unit", r"small_molecule_feature-quantification_unit",
    r"id_confidence_measure\[1\]",
)  # fmt: skip
INTEGER, DOUBLE, TEXT, LIST, PARAMETER = "integer", "double", "text", "list", "parameter"
IDS, ADDUCT, ADDUCTS, REFERENCE, LEVEL, URI, DOUBLES = (
    "ids",
    "adduct",
    "adducts",
    "reference",
    "level",
    "uri",
    "doubles",
)
TABLES = {  # prefix: header, then name, type and whether null may stand there
    "SML": ("SMH", [
        ("SML_ID", INTEGER, False), ("SMF_ID_REFS", IDS, True), ("database_identifier", LIST, True),
        ("chemical_formula", LIST, True), ("smiles", LIST, True), ("inchi", LIST, True), ("chemical_name", LIST, True),
        ("uri", LIST, True), ("theoretical_neutral_mass", DOUBLES, True), ("adduct_ions", ADDUCTS, True),
        ("reliability", LEVEL, True), ("best_id_confidence_measure", PARAMETER, True),
        ("best_id_confidence_value", DOUBLE, True), ("abundance_assay[]", DOUBLE, True),
        ("abundance_study_variable[]", DOUBLE, True), ("abundance_variation_study_variable[]", DOUBLE, True),
    ]),
    "SMF": ("SFH", [
        ("SMF_ID", INTEGER, False), ("SME_ID_REFS", IDS, True), ("SME_ID_REF_ambiguity_code", INTEGER, True),
        ("adduct_ion", ADDUCT, True), ("isotopomer", PARAMETER, True), ("exp_mass_to_charge", DOUBLE, False),
        ("charge", INTEGER, False), ("retention_time_in_seconds", DOUBLE, True),
        ("retention_time_in_seconds_start", DOUBLE, True), ("retention_time_in_seconds_end", DOUBLE, True),
        ("abundance_assay[]", DOUBLE, True),
    ]),
    "SME": ("SEH", [
        ("SME_ID", INTEGER, False), ("evidence_input_id", TEXT, False), ("database_identifier", TEXT, True),
        ("chemical_formula", TEXT, True), ("smiles", TEXT, True), ("inchi", TEXT, True), ("chemical_name", TEXT, True),
        ("uri", URI, True), ("derivatized_form", PARAMETER, True), ("adduct_ion", ADDUCT, True),
        ("exp_mass_to_charge", DOUBLE, False), ("charge", INTEGER, False),
        ("theoretical_mass_to_charge", DOUBLE, False), ("spectra_ref", REFERENCE, False),
        ("identification_method", PARAMETER, False), ("ms_level", PARAMETER, False),
        ("id_confidence_measure[]", DOUBLE, True), ("rank", INTEGER, False),
    ]),
}  # fmt: skip
PATTERNS = {
    INTEGER: r"\d+",
    DOUBLE: r"-?\d+(\.\d+)?|NaN",  # xs:decimal: no exponent
    DOUBLES: r"-?\d+(\.\d+)?(\|-?\d+(\.\d+)?)*",
    TEXT: r"[^\t]+",
    LIST: r"[^\t|]+(\|[^\t|]+)*",
    URI: r"[a-z]+:\S+",
    PARAMETER: r"\[[^\t]*\]",
    IDS: r"\d+(\|\d+)*",
    ADDUCT: r"\[\d*M([+-][\w\d]+)*\]\d*[+-]",
    ADDUCTS: r"\[\d*M([+-][\w\d]+)*\]\d*[+-](\|\[\d*M([+-][\w\d]+)*\]\d*[+-])*",
    REFERENCE: r"ms_run\[\d+\]:[^\t|]+",
    LEVEL: r"1|2|2a|2b|3|4|5",  # of MS:1002955
}
_PARAMETER = re.compile(r'\[([^,"\[\]]*), ?([^,"\[\]]*), ?("[^"]*"|[^,"\[\]]*), ?("[^"]*"|[^,"\[\]]*)\]')
_OPTION = re.compile(r"opt_(global|(?:assay|study_variable|ms_run)\[\d+\])_[A-Za-z0-9_\-\[\]:]+")


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name and parents of every term of PSI-MS."""
    text = gzip.decompress((Path(vendor.__file__).parent / "psi-ms.obo.gz").read_bytes()).decode()
    terms = {}
    for block in text.split("\n\n"):
        if found := re.search(r"^id: (MS:\d+)\nname: (.*)$", block, re.MULTILINE):
            terms[found[1]] = found[2], tuple(re.findall(r"^is_a: (\S+)", block, re.MULTILINE))
    return terms


def is_under(accession: str, root: str) -> bool:
    parents = vocabulary()[accession][1] if accession in vocabulary() else ()
    return accession == root or any(is_under(parent, root) for parent in parents)


class MzTabM:
    """A file of mzTab-M, checked as it is read; `tables` and `metadata` are what it holds."""

    def __init__(self, text: str) -> None:
        self.metadata: list[tuple[str, str]] = []
        self.headers: dict[str, list[str]] = {}
        self.tables: dict[str, list[dict[str, str]]] = {prefix: [] for prefix in TABLES}
        self.comments: list[str] = []
        assert text.endswith("\n") and "\r" not in text
        self._read(text[:-1].split("\n"))
        self.values = dict(self.metadata)
        self._check_metadata()
        self._check_parameters()
        for prefix in TABLES:
            self._check_table(prefix)
        self._check_references()

    def parameter(self, text: str) -> tuple[str, str, str, str]:
        found = _PARAMETER.fullmatch(text)
        assert found, f"no parameter: {text}"
        label, accession, name, value = (part.strip().strip('"') for part in found.groups())
        assert name
        assert bool(label) == bool(accession)
        if label:
            assert accession.startswith(f"{label}:") and label in self.labels
        if label == "MS":
            assert vocabulary()[accession][0] == name
        return label, accession, name, value

    @property
    def labels(self) -> set[str]:
        return {value for name, value in self.metadata if re.fullmatch(r"cv\[\d+\]-label", name)}

    def _read(self, lines: list[str]) -> None:
        order, last, was_blank = ["MTD", "SMH", "SML", "SFH", "SMF", "SEH", "SME"], 0, False
        for line in lines:
            if not line:
                was_blank = True
                continue
            prefix, *cells = line.split("\t")
            if prefix == "COM":
                self.comments.append(cells[0])
                continue
            place = order.index(prefix)
            assert place >= last, f"{prefix} after {order[last]}"
            if prefix == "MTD":
                name, value = cells
                assert name and value.strip(), line
                self.metadata.append((name, value))
            elif prefix in ("SMH", "SFH", "SEH"):
                assert place > last, f"a second {prefix}"
                assert was_blank, f"no blank line before {prefix}"
                self.headers[order[place + 1]] = cells
            else:
                header = self.headers[prefix]
                assert len(cells) == len(header), f"{len(cells)} cells under {len(header)} columns: {line}"
                assert all(cell == cell.strip() and cell for cell in cells), f"an empty cell: {line}"
                self.tables[prefix].append(dict(zip(header, cells, strict=True)))
            last, was_blank = place, False

    def _check_metadata(self) -> None:
        names = [name for name, _ in self.metadata]
        for pattern in MANDATORY:
            assert any(re.fullmatch(pattern, name) for name in names), f"{pattern} is missing"
        single = [name for name in names if not name.startswith("colunit")]
        assert len(set(single)) == len(single)
        places = []
        for name in names:
            element = name if name in METADATA_ORDER else re.match(r"[A-Za-z_]+", name)[0]
            found = re.fullmatch(r"[A-Za-z_]+\[(\d+)\](?:-([a-z_]+)(?:\[(\d+)\])?)?", name)
            number, part, inner = (int(found[1]), found[2] or "", int(found[3] or 0)) if found else (0, "", 0)
            within = WITHIN.get(element)
            places.append((METADATA_ORDER.index(element), number, within.index(part) if within else 0, inner))
        if any(name.startswith("assay") for name in names):
            assert places == sorted(places), "fields are out of order"
        assert re.fullmatch(r"\d\.\d\.\d-M", self.values["mzTab-version"])
        self.runs, self.assays = (
            sorted({int(m[1]) for name in names if (m := re.match(rf"{element}\[(\d+)\]", name))})
            for element in ("ms_run", "assay")
        )
        for numbers in (self.runs, self.assays):
            assert numbers == list(range(1, len(numbers) + 1))
        for number in self.runs:
            location = self.values[f"ms_run[{number}]-location"]
            assert location == "null" or re.fullmatch(r"[a-z]+:[!-~]+", location)
            _, polarity, *_ = self.parameter(self.values[f"ms_run[{number}]-scan_polarity[1]"])
            assert polarity in ("MS:1000129", "MS:1000130")
            assert (f"ms_run[{number}]-format" in self.values) == (f"ms_run[{number}]-id_format" in self.values)
        for number in self.assays:
            assert int(re.fullmatch(r"ms_run\[(\d+)\]", self.values[f"assay[{number}]-ms_run_ref"])[1]) in self.runs
        grouped = self.values["study_variable[1]-assay_refs"].split("|")
        assert grouped == [f"assay[{number}]" for number in self.assays]
        assert self.values["study_variable[1]"] == "undefined"

    def _check_parameters(self) -> None:
        parameter = self.parameter
        assert is_under(parameter(self.values["software[1]"])[1], "MS:1000531")
        assert is_under(parameter(self.values["quantification_method"])[1], "MS:1001833")
        assert is_under(parameter(self.values["id_confidence_measure[1]"])[1], "MS:1002888")
        reliability = parameter(self.values["small_molecule-identification_reliability"])
        assert reliability[1] == "MS:1002955" and is_under(reliability[1], "MS:1002895")
        assert parameter(self.values["database[1]"])
        for unit in ("small_molecule-quantification_unit", "small_molecule_feature-quantification_unit"):
            assert parameter(self.values[unit])[0] in ("PRIDE", "UO", "MS")
        for name, value in self.metadata:
            if name.endswith(("-format", "-id_format")) or name.startswith("id_confidence_measure"):
                parameter(value)
            if name.startswith("colunit"):
                column, _, unit = value.partition("=")
                assert column in self.headers[{"evidence": "SME", "feature": "SMF"}.get(name.split("_")[-1], "SML")]
                parameter(unit)

    def _expected(self, prefix: str) -> list[tuple[str, str, bool]]:
        measures = [n for n in self.values if re.fullmatch(r"id_confidence_measure\[\d+\]", n)]
        expected = []
        for name, kind, nullable in TABLES[prefix][1]:
            if name.startswith("abundance_assay"):
                expected += [(f"abundance_assay[{n}]", kind, nullable) for n in self.assays]
            elif name.startswith("id_confidence"):
                expected += [(measure, kind, nullable) for measure in measures]
            else:
                expected.append((name.replace("[]", "[1]"), kind, nullable))
        return expected

    def _check_table(self, prefix: str) -> None:
        expected, header = self._expected(prefix), self.headers[prefix]
        assert header[: len(expected)] == [name for name, _, _ in expected]
        for name in header[len(expected) :]:
            assert _OPTION.fullmatch(name), name
        assert len(set(header)) == len(header)
        for row in self.tables[prefix]:
            for name, kind, nullable in expected:
                if row[name] == "null":
                    assert nullable, f"{prefix} {name} is null"
                else:
                    assert re.fullmatch(PATTERNS[kind], row[name]), f"{prefix} {name}: {row[name]!r}"
                    if kind == PARAMETER:
                        self.parameter(row[name])

    def _check_references(self) -> None:
        ids = {prefix: [row[f"{prefix}_ID"] for row in rows] for prefix, rows in self.tables.items()}
        for numbers in ids.values():
            assert len(set(numbers)) == len(numbers)
        features, evidence = set(ids["SMF"]), set(ids["SME"])
        lists = [name for name, kind, _ in TABLES["SML"][1] if kind in (LIST, DOUBLES)]
        referenced: list[str] = []
        for row in self.tables["SML"]:
            references = row["SMF_ID_REFS"].split("|")
            assert set(references) <= features
            referenced += references
            assert len({row[name].count("|") for name in lists if row[name] != "null"}) <= 1
            if row["database_identifier"] != "null":
                assert row["best_id_confidence_measure"] in self.values.values()
                assert row["database_identifier"].startswith(self.values["database[1]-prefix"] + ":")
        assert sorted(referenced) == sorted(features), "a feature without a molecule, or with two"
        prefix = self.values["database[1]-prefix"]
        of_feature: list[str] = []
        for row in self.tables["SMF"]:
            references = [] if row["SME_ID_REFS"] == "null" else row["SME_ID_REFS"].split("|")
            assert set(references) <= evidence
            of_feature += references
            assert row["SME_ID_REF_ambiguity_code"] in (("1", "2", "3") if len(references) > 1 else ("null",))
        assert sorted(of_feature) == sorted(evidence), "evidence of no feature, or of two"
        for row in self.tables["SME"]:
            assert int(re.match(r"ms_run\[(\d+)\]", row["spectra_ref"])[1]) in self.runs
            assert row["database_identifier"].startswith(f"{prefix}:")
            assert int(row["rank"]) >= 1
            assert int(row["charge"]) >= 1
            assert is_under(self.parameter(row["identification_method"])[1], "MS:1001080")
            assert self.parameter(row["ms_level"])[1] == "MS:1000511"
