"""The pages on the evaluation explain all that a report can show, name keys that exist, and run as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from ionbed.cli import main
from ionbed.configs.loading import to_tree
from ionbed.evaluation import confidence, mces_at_1, measure, statistics, strata_judgement, trust
from ionbed.evaluation.audits import controls, decoys, findings, folds, scores
from ionbed.evaluation.audits.altered_queries import MASK_MZ
from ionbed.evaluation.audits.run import AuditOptions
from ionbed.evaluation.baselines import blind, lookup_record
from ionbed.evaluation.baselines.networks import TrainedBaselineOptions
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.comparisons import KIND_OF, MAIN_METRIC
from ionbed.evaluation.dataset import load_evaluation_data
from ionbed.evaluation.outcomes import MCES_AT_1, MRR, TANIMOTO_AT_1
from ionbed.evaluation.pair_judgement import AVERAGE_PRECISION, BETWEEN_LABORATORIES, ROC_AUC
from ionbed.evaluation.report.results import FORMAT
from ionbed.evaluation.rows import table_rows
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.scorers import Kind
from ionbed.evaluation.strata import NAMES
from ionbed.evaluation.task_files import HITS
from ionbed.spectra import lookups
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store

ROOT = Path(__file__).parents[2]
NAMES_OF_PAGES = ("evaluation", "baselines", "audits")
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in NAMES_OF_PAGES}
TRANSFER = ", analogue transfer"


def table_lines(page: str) -> Iterator[list[str]]:
    """Yield the cells of every line of every table."""
    for line in PAGES[page].splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def explained(page: str, name: str) -> list[list[str]]:
    """Return the lines of tables whose first cell lists ``name`` and whose other cells say something."""
    of = re.compile(rf"(^|, ){re.escape(name)}(, |$)")
    return [line for line in table_lines(page) if of.search(line[0]) and any(line[1:])]


def prose(page: str) -> str:
    return " ".join(PAGES[page].split())


@pytest.fixture
def folder(build: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    spectra, folded = build.isomers(24)
    build.write_store(tmp_path / "store", spectra)
    build.split_of(folded).save(tmp_path / "split.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_question_and_its_main_metric_is_explained() -> None:
    for question, kind in KIND_OF.items():
        (line,) = (line for line in table_lines("evaluation") if line[0] == question and len(line) == 4)
        assert line[-1] == MAIN_METRIC[kind]


def test_every_row_of_the_tables_is_explained(folder: Path) -> None:
    config = EvaluationConfig(
        dataset=folder / "store",
        split=folder / "split.json",
        trained_baselines=TrainedBaselineOptions(trainings=1, max_epochs=1, hidden_size=8, num_wavelengths=4),
    )
    split = Split.load(config.split)
    data = load_evaluation_data(Store(config.dataset), split)
    candidates = candidate_molecules(data)
    rows = table_rows(data, candidates, {}, {}, config, split_hash=split.hash)
    labels = {row.label for row in rows} | {blind.SMILES_CLASSIFIER}  # which these molecules give no decoys to
    assert len(labels) > 12
    for label in labels:
        assert explained("baselines", label.removesuffix(TRANSFER)), label
        assert re.search(rf"\b{re.escape(label.removesuffix(TRANSFER).replace(',', ''))}\b", prose("evaluation")), label
    assert explained("baselines", f"...{TRANSFER}")
    given = {line[0]: line[3] for line in table_lines("baselines") if len(line) == 4}
    given |= {label: given[", ".join(lookups.LABELS)] for label in lookups.LABELS}
    for row in rows:
        if not row.label.endswith(TRANSFER):
            words = [known.replace("_mz", " m/z") for known in row.known]
            assert all(word in given[row.label] for word in words), row.label
            assert bool(words) != given[row.label].startswith("nothing"), row.label


def test_every_metric_is_explained() -> None:
    metrics = [f"hit@{k}" for k in HITS]
    metrics += [MRR, TANIMOTO_AT_1, MCES_AT_1, ROC_AUC, AVERAGE_PRECISION, BETWEEN_LABORATORIES]
    for metric in metrics:
        assert explained("evaluation", metric), metric


def test_every_stratum_is_explained() -> None:
    for key, name in NAMES.items():
        assert any(f"`{key}`" in line[1] for line in explained("evaluation", name)), name
    section = prose("evaluation").split("## At which collision energies")[1].split("##")[0]
    for key in trust.GRIDS:
        assert (
            NAMES[key].replace("Tanimoto similarity to the nearest training molecule", "similarity to training")
            in section
        )


def test_every_audit_is_explained() -> None:
    audits = {value for name, value in vars(findings).items() if name.isupper() and isinstance(value, str)}
    audits.remove(findings.SPLIT)
    assert set(findings.ROW_AUDITS + findings.CORPUS_AUDITS) < audits
    for audit in audits:
        assert len(explained("audits", audit)) == 1, audit
    for line in table_lines("audits"):
        if line[0] in findings.ROW_AUDITS:
            assert line[1].startswith("row")
        if line[0] in findings.CORPUS_AUDITS:
            assert line[1] == "corpus"


def test_every_kind_verdict_and_role_is_named() -> None:
    page = prose("evaluation").lower()
    titles = {
        "reference": "references", "blind": "blind", "look-up": "look-ups",
        "trained": "trained here", "learned": "models under test",
    }  # fmt: skip
    for kind in get_args(Kind):
        assert explained("evaluation", titles[kind])
    for word in (*get_args(statistics.Verdict), *get_args(statistics.Unit)):
        assert word in page
    for role in (measure.BEST_LOOKUP, measure.BEST_BLIND, measure.CHANCE_ROLE):
        assert f"**the {role}" in page or f"**{role}" in page


def test_every_limit_is_that_of_the_code() -> None:
    options, mces = statistics.BootstrapOptions(), mces_at_1.MCESOptions()
    networks, lookup = TrainedBaselineOptions(), lookups.LookupOptions()
    said = {
        "evaluation": [
            f'(`"format": {FORMAT}`;',
            f"{options.resamples:,} times (`bootstrap.resamples`)",
            f"With fewer than {statistics.MINIMUM_MOLECULES} molecules there is no interval",
            f"count as fewer than {statistics.MINIMUM_GROUPS} equal ones",
            f"fewer than {strata_judgement.SMALLEST_CELL} queries or {statistics.MINIMUM_MOLECULES} molecules are left",
            f"up to {trust.MOST_BINS} finer bins",
            f"holds {trust.SMALLEST_BIN} queries of {trust.FEWEST_MOLECULES} molecules",
            f"{mces.max_queries} (`mces.max_queries`)",
            f"{mces.limit:g} (`mces.limit`)",
            f"{mces.seconds:g} s for a pair (`mces.seconds`)",
            "threshold at " + ", ".join(f"{level:.0%}" for level in confidence.FDR_LEVELS) + " FDR",
        ],
        "baselines": [
            f"- {lookup.remove_precursor_da:g} Da (`lookups.remove_precursor_da`)",
            f"than {lookup.merge_da:g} Da (`lookups.merge_da`)",
            f"below {lookup.noise_cutoff:g} (`lookups.noise_cutoff`)",
            f"power {lookup.cosine_intensity_power:g} (`lookups.cosine_intensity_power`)",
            f"within {lookup.tolerance_da:g} Da (`lookups.tolerance_da`)",
            f"{lookup_record.PAIRS_CHECKED} pairs of its own spectra",
            f"more than {lookup_record.LARGEST_SHARE_APART:.0%} of the pairs differ by more than 0.00001",
            f"hashed to {blind.NUM_NGRAM_BUCKETS:,} buckets",
            f"{networks.max_peaks} strongest peaks",
            f"up to m/z {networks.max_mz:g}",
            f"({networks.num_wavelengths} wavelengths",
        ],
        "audits": [
            f"fires at {findings.SIGNIFICANT:g}",
            f"`audits.control_queries` queries ({AuditOptions().control_queries};",
            f"by more than {controls.MARGIN:g} of the main metric",
            f"that has {controls.MINIMUM_QUERIES} such molecules",
            f"one at m/z {MASK_MZ:g}",
            f"distance above {decoys.TOLERATED_DISTANCE:g}",
            f"more than {decoys.TOLERATED_AREA:.0%} of the wrong candidates",
            f"above {folds.TOLERATED_COPIES:.0%} of the query spectra",
            f"beyond {scores.TOLERATED_CORRELATION:g} in either direction",
            f"more than {scores.EQUAL:g} of the spread",
            f"right candidates of {scores.MINIMUM_FOR_PERFECTION} molecules",
        ],
    }
    for page, texts in said.items():
        for text in texts:
            assert text in prose(page), text


def test_every_key_that_is_named_exists() -> None:
    tree = to_tree(EvaluationConfig(dataset=Path("store"), split=Path("split.json")))
    sections = {name for name, value in tree.items() if isinstance(value, dict)} - {"models", "loss_logs"}
    named = 0
    for page in PAGES.values():
        for section, key in re.findall(rf"\b({'|'.join(sorted(sections))})\.(\w+)\b", page):
            if key in ("md", "py"):
                continue  # a file
            assert key in tree[section], f"{section}.{key}"
            named += 1
    assert named > 25


def test_the_quick_look_and_the_comparison_run_as_they_stand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGES["evaluation"].replace("\\\n", " ")
    commands = [shlex.split(line.removeprefix("$ ")) for line in text.splitlines() if line.startswith("$ ionbed")]
    (quick,) = (words for words in commands if words[1:3] == ["evaluate", "evaluate"])
    assert main(quick[1:]) == 0
    for file in ("report.html", "results.json", "table.md", "manifest.json", "same-molecule.parquet"):
        assert (folder / "quick" / file).is_file()
    (compare,) = (words for words in commands if words[1:3] == ["evaluate", "compare"])
    (folder / "quick").rename(folder / "old-report")
    assert main([*quick[1:-1], "new-report"]) == 0
    assert main(compare[1:]) == 0
    assert "has the same figures in both reports" in capsys.readouterr().out
    for ending in ("html", "json", "md"):
        assert (folder / "compared" / f"comparison.{ending}").is_file()


def test_every_link_of_the_documentation_resolves() -> None:
    checked = 0
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        prose_alone = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose_alone):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            linked = page if not name else page.parent / name
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in anchors, f"{page.name}: {target}"
            checked += 1
    assert checked > 40
