"""Rows whose merit is known, from the question to the verdict: every number is what arithmetic says it must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ionbed.evaluation.candidates import Candidates, candidate_molecules
from ionbed.evaluation.dataset import EvaluationData, load_evaluation_data
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.judged import Comparison
from ionbed.evaluation.judgement import Judge
from ionbed.evaluation.mces_at_1 import MCESDistances, MCESOptions
from ionbed.evaluation.measure import QuestionResult, measure
from ionbed.evaluation.predictions import PredictionManifest, Predictions
from ionbed.evaluation.question import ask
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.statistics import BootstrapOptions, holm
from ionbed.evaluation.task_files import Task
from ionbed.spectra.store import Store

from .conftest import isomers, split_of, write_store

BOOTSTRAP = BootstrapOptions(resamples=300)
TASKS = ("library search", "open-world search", "same molecule")
ISOMERS = 4
"""Molecules that share a precursor m/z: guessing is right in a quarter of the queries."""


class Truth:
    """Scores by the truth: 1 for the right molecule, but on chosen queries 2 for the isomer after it.

    Parameters
    ----------
    is_right : callable
        From the rows of the queries to whether they are answered rightly.
    """

    kind: Any = "learned"

    def __init__(self, label: str, data: EvaluationData, is_right: Callable[[np.ndarray], np.ndarray]) -> None:
        self.label, self._is_right = label, is_right
        self._number = np.array([int(text.split("-")[0]) for text in data.spectrum_id])  # of the molecule
        self._of_molecule = np.full(len(data.smiles), -1)
        self._of_molecule[data.molecule] = self._number

    def _score(self, queries: np.ndarray, number: np.ndarray) -> np.ndarray:
        true = self._number[queries]
        wrong = true // ISOMERS * ISOMERS + (true + 1) % ISOMERS
        return 1.0 * (number == true) + 2.0 * ((number == wrong) & ~self._is_right(queries))

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return self._score(queries[:, None], self._number[None, library])

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        return self._score(query, self._of_molecule[molecule])


class Structures:
    """The same by the candidates' structures: a scorer that compares no spectra."""

    kind: Any = "learned"

    def __init__(self, label: str, data: EvaluationData, is_right: Callable[[np.ndarray], np.ndarray]) -> None:
        self.label = label
        self.score_structures = Truth(label, data, is_right).score_structures


class Constant(Truth):
    def _score(self, queries: np.ndarray, number: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast(queries, number).shape, 0.7)


class Silent(Truth):
    def _score(self, queries: np.ndarray, number: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast(queries, number).shape, np.nan)


class Noisy(Truth):
    """Normal scores, one standard deviation higher where the molecule is the right one."""

    def _score(self, queries: np.ndarray, number: np.ndarray) -> np.ndarray:
        shape = np.broadcast(queries, number).shape
        seeds = np.random.default_rng(3).normal(0, 1, (2000, 200))
        noise = seeds[np.broadcast_to(queries, shape), np.broadcast_to(number, shape)]
        return noise + (number == self._number[queries])


def right_on(number_of_molecules: int) -> Callable[[np.ndarray], np.ndarray]:
    """Right on so many of the 32 tested molecules: those of even groups, counted through the groups."""

    def is_right(queries: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        number = numbers[queries]
        place = number // (2 * ISOMERS) + (number % ISOMERS) * 8
        return place < number_of_molecules

    return is_right  # type: ignore[return-value]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Sixty molecules in groups of four isomers, half of the groups tested: 32 molecules, 128 queries."""
    spectra, folds = isomers(60)
    store = write_store(tmp_path_factory.mktemp("truths") / "store", spectra)
    data = load_evaluation_data(Store(store), split_of(folds))
    molecules = candidate_molecules(data)
    config = EvaluationConfig(dataset=store, split=store, tasks=TASKS)
    questions = [ask(name, data, molecules, config) for name in TASKS]
    assert all(question is not None for question in questions)
    return SimpleNamespace(data=data, molecules=molecules, questions=questions)


def entry(label: str, kind: Any, *scorers: Callable[[str, EvaluationData], Any], **more: Any) -> Entry:
    def builder(make: Callable[[str, EvaluationData], Any]):
        def built(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> Any:
            return make(label, data)

        return built

    return Entry(label, kind, tuple(builder(make) for make in scorers), **more)


def rate(of_32: int) -> Callable[[str, EvaluationData], Truth]:
    """A scorer that is right on ``of_32`` of the 32 tested molecules."""

    def make(label: str, data: EvaluationData) -> Truth:
        numbers = np.array([int(text.split("-")[0]) for text in data.spectrum_id])
        chosen = right_on(of_32)
        return Truth(label, data, lambda queries: chosen(queries, numbers))  # type: ignore[call-arg]

    return make


def plain(scorer: type[Any]) -> Callable[[str, EvaluationData], Any]:
    return lambda label, data: scorer(label, data, lambda queries: np.ones(np.shape(queries), bool))


def results(world: SimpleNamespace, entries: Sequence[Entry], **more: Any) -> dict[str, QuestionResult]:
    found = measure(world.questions, world.data, world.molecules, entries, BOOTSTRAP, seed=0, **more)
    return {result.question.name: result for result in found}


def rows(result: QuestionResult) -> dict[str, dict[str, Any]]:
    return {row.tree["label"]: row.tree for row in result.rows}


def verdicts(row: dict[str, Any], metric: str) -> dict[str, str]:
    return {one["role"]: one["verdict"] for one in row["differences"] if one["metric"] == metric}


ROWS = (
    entry("random", "reference", plain(Constant)),
    entry("blind", "blind", rate(12)),
    entry("half right", "look-up", rate(16)),
    entry("worse look-up", "look-up", rate(6)),
    entry("constant", "learned", plain(Constant)),
    entry("silent", "learned", plain(Silent)),
    entry("oracle", "learned", plain(Truth), known=("truth",)),
    entry("structures", "learned", plain(Structures)),
    entry("as good", "learned", rate(16)),
    entry("better", "learned", rate(28)),
    entry("worse", "learned", rate(2)),
    entry("leaky", "learned", plain(Truth), exposure="it was trained on the fold of the queries"),
)


@pytest.fixture(scope="module")
def found(world: SimpleNamespace) -> dict[str, QuestionResult]:
    """The tables of all rows."""
    with MCESDistances(MCESOptions(max_queries=64, limit=6.0), workers=1) as distances:
        return results(world, [*ROWS, entry("noisy", "learned", plain(Noisy))], distances=distances)


def test_a_ranked_question_gives_every_row_its_truth(found: dict[str, QuestionResult]) -> None:
    of = rows(found["library search"])
    assert of["random"]["counts"]["queries"] == 128
    expected = {
        "constant": 1 / 4,
        "silent": 0.0,
        "oracle": 1.0,
        "structures": 1.0,
        "as good": 0.5,
        "better": 28 / 32,
        "worse": 2 / 32,
    }
    for label, value in expected.items():
        hit = of[label]["metrics"]["hit@1"]
        assert hit["micro"]["value"] == hit["macro"]["value"] == pytest.approx(value, abs=1e-12)
        assert hit["random"] == pytest.approx(1 / 4, abs=1e-12)
        assert hit["chance-corrected"]["value"] == pytest.approx((value - 0.25) / 0.75, abs=1e-12)
        assert (hit["queries"], hit["molecules"]) == (128, 32)
        # A wrong answer is followed by the right one; chance is the mean of 1, 1/2, 1/3 and 1/4.
        mrr = {"constant": 25 / 48, "silent": 0.0}.get(label, value + (1 - value) / 2)
        assert of[label]["metrics"]["MRR"]["micro"]["value"] == pytest.approx(mrr, abs=1e-12)
        full = 0.0 if label == "silent" else 1.0
        assert of[label]["metrics"]["hit@5"]["micro"]["value"] == full  # four candidates only
    constant = of["constant"]["metrics"]["hit@1"]
    assert (constant["best case"], constant["worst case"]) == (1.0, 0.0)
    assert constant["chance-corrected"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert of["oracle"]["metrics"]["Tanimoto@1"]["micro"]["value"] == 1.0
    assert of["silent"]["counts"]["queries without any score"] == 128


def test_verdicts_are_those_of_the_truth(found: dict[str, QuestionResult]) -> None:
    of = rows(found["library search"])
    roles = ("random", "best blind", "best look-up")
    for label, word in (
        ("silent", "loses"), ("oracle", "beats"), ("structures", "beats"), ("better", "beats"), ("leaky", "beats")
    ):  # fmt: skip
        assert verdicts(of[label], "hit@1") == dict.fromkeys(roles, word), label
    # What is true but small may stay unresolved on 32 molecules; it is never told the wrong way round.
    order = {"random": 8, "best blind": 12, "best look-up": 16}
    for label, own in (("constant", 8), ("as good", 16), ("worse", 2)):
        for role, word in verdicts(of[label], "hit@1").items():
            assert word in ("unresolved", *["beats"] * (own > order[role]), *["loses"] * (own < order[role])), label
    assert verdicts(of["worse"], "hit@1")["best look-up"] == "loses"
    for label in ("constant", "as good", "better"):
        assert {one["against"] for one in of[label]["differences"]} <= {"random", "blind", "half right"}
    same = next(o for o in of["as good"]["differences"] if o["role"] == "best look-up" and o["metric"] == "hit@1")
    assert same["estimate"] == {"value": 0.0, "low": 0.0, "high": 0.0} and same["p"] == 1.0
    assert not any(one["metric"] == "hit@5" for one in of["oracle"]["differences"])  # guessing is perfect
    assert of["random"]["differences"] == of["half right"]["differences"] == []
    assert of["leaky"]["exposure"] and of["oracle"]["known"] == ["truth"]


def test_p_values_are_corrected_over_the_main_metric_and_over_the_others(found: dict[str, QuestionResult]) -> None:
    for result in found.values():
        differences = [one for row in result.tree["rows"] for one in row["differences"]]
        assert len({one["own"] for one in differences}) > 5
        for is_main in (True, False):
            of_family = [one for one in differences if (one["metric"] == result.tree["main"]) is is_main]
            if result.question.kind == "analogue" and not is_main:
                continue  # Tanimoto@1 alone
            assert len(of_family) > 1
            assert [one["p corrected"] for one in of_family] == holm([one["p"] for one in of_family])
        for one in differences:
            if one["verdict"] != "unresolved":
                assert one["p corrected"] <= 0.05


def test_pairs_give_every_row_its_truth(found: dict[str, QuestionResult]) -> None:
    of = rows(found["same molecule"])
    share = of["random"]["metrics"]["average precision"]["random"]
    for label, area, precision in (("constant", 0.5, share), ("silent", 0.5, share), ("oracle", 1.0, 1.0)):
        assert of[label]["metrics"]["ROC AUC"]["micro"]["value"] == pytest.approx(area, abs=1e-12)
        assert of[label]["metrics"]["average precision"]["micro"]["value"] == pytest.approx(precision, abs=1e-12)
    truth = NormalDist().cdf(1 / np.sqrt(2))
    noisy = of["noisy"]["metrics"]["ROC AUC"]["micro"]
    assert noisy["low"] < truth < noisy["high"] and noisy["value"] == pytest.approx(truth, abs=0.03)
    assert verdicts(of["constant"], "ROC AUC")["random"] == "unresolved"
    assert noisy["low"] > 0.5
    assert verdicts(of["oracle"], "ROC AUC")["random"] == "beats"
    differences = {one["role"]: one for one in of["constant"]["differences"] if one["metric"] == "ROC AUC"}
    assert differences["random"]["estimate"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert differences["best look-up"]["estimate"]["high"] < 0


def test_in_an_open_world_an_oracle_finds_all_and_only_what_can_be_found(found: dict[str, QuestionResult]) -> None:
    result = found["open-world search"]
    of = rows(result)
    answerable = np.array(result.per_query.column("answerable").to_pylist()[:128])
    assert answerable.sum() == 64
    molecule = result.per_query.column("molecule").to_pylist()[:128]
    assert len({*zip(molecule, answerable.tolist(), strict=True)}) == 32  # a molecule can be found, or cannot
    assert of["oracle"]["metrics"]["hit@1"]["queries"] == 64
    assert of["oracle"]["metrics"]["hit@1"]["micro"]["value"] == 1.0
    assert of["constant"]["metrics"]["hit@1"]["micro"]["value"] == pytest.approx(0.25)
    at = {one["FDR"]: one for one in of["oracle"]["confidence"]["thresholds"]}
    assert (at[0.05]["threshold"], at[0.05]["accepted"], at[0.05]["measured"]) == (1.0, 64, 0.0)
    assert at[0.01]["threshold"] is None  # a hundred answers are needed to say so


def test_mces_follows_the_truth(found: dict[str, QuestionResult]) -> None:
    of = rows(found["library search"])
    values = {label: row["metrics"]["MCES@1"]["micro"]["value"] for label, row in of.items()}
    assert values["oracle"] == 0.0 and values["silent"] == 6.0
    assert values["better"] < values["as good"] < values["worse"]
    assert verdicts(of["oracle"], "MCES@1") == dict.fromkeys(("random", "best blind", "best look-up"), "beats")
    assert verdicts(of["silent"], "MCES@1")["random"] == "loses"


def test_several_trainings_are_one_row_and_their_spread_is_doubt(world: SimpleNamespace) -> None:
    lookup = entry("half right", "look-up", rate(16))
    steady = entry("steady", "learned", rate(30), rate(29), rate(31))
    shaky = entry("shaky", "learned", rate(31), rate(18), rate(24))
    of = rows(results(world, [lookup, steady, shaky])["library search"])
    assert of["steady"]["metrics"]["hit@1"]["micro"]["value"] == pytest.approx(30 / 32)
    assert of["shaky"]["metrics"]["hit@1"]["micro"]["value"] == pytest.approx(73 / 96)
    assert of["shaky"]["trainings"] == 3
    assert of["shaky"]["spread"]["hit@1"] == {"least": 18 / 32, "most": 31 / 32}
    assert verdicts(of["steady"], "hit@1")["best look-up"] == "beats"
    assert verdicts(of["shaky"], "hit@1")["best look-up"] == "unresolved"
    assert of["shaky"]["metrics"]["hit@1"]["micro"]["high"] <= 1.0
    p_values = {
        label: next(one for one in of[label]["differences"] if one["metric"] == "hit@1" and one["role"] == "random")
        for label in ("steady", "shaky")
    }
    assert p_values["steady"]["p"] < 0.001 and p_values["shaky"]["p"] > 0.01  # molecules alone would make it tiny
    assert all("trainings" in one["test"] for one in p_values.values())


def made_task(num_molecules: int, pool: int) -> Task:
    """One to three queries of each molecule, with pools of ``pool`` molecules; the true one is the first."""
    query = np.repeat(np.arange(num_molecules), 1 + np.arange(num_molecules) % 3)
    candidates = (query[:, None] + np.arange(pool)) % num_molecules
    return Task(
        header={"kind": "library", "hits": [1], "hash": "", "counts": {}, "strata": []},
        query_id=pa.array([str(place) for place in range(len(query))]),
        query_pool=np.arange(len(query)),
        query_molecule=query,
        candidate_id=pa.array([str(place) for place in range(candidates.size)]),
        candidate_pool=np.repeat(np.arange(len(query)), pool),
        candidate_molecule=candidates.reshape(-1),
        molecule=np.array([str(number) for number in range(num_molecules)], object),
        fingerprint=None,
        strata={},
    )


def test_intervals_cover_the_true_hit_rate_and_no_difference_is_seldom_called_one() -> None:
    """Tools right in 0.6 of the queries, on some molecules more often than on others."""
    task = made_task(100, 4)
    judge = Judge(task, BootstrapOptions(resamples=500), seed=0)
    rng = np.random.default_rng(0)

    def tool(name: str) -> Predictions:
        ability = rng.beta(3, 2, 100)[task.query_molecule]
        score = np.zeros((len(ability), 4))
        score[:, 1] = 1.0
        score[rng.random(len(ability)) < ability, 0] = 2.0
        manifest = PredictionManifest(name, (), ())
        return Predictions(manifest, task.candidate_pool, np.arange(score.size), score.reshape(-1), {})

    covered, called = {"micro": 0, "macro": 0, "MRR": 0}, 0
    trials = 400
    mrr = 0.6 + 0.4 * (1 / 2 + 1 / 3 + 1 / 4) / 3  # a wrong candidate is first, all others tie
    for _ in range(trials):
        first, second = judge([tool("first")]), judge([tool("second")])
        for name, metric, truth in (("micro", "hit@1", 0.6), ("macro", "hit@1", 0.6), ("MRR", "MRR", mrr)):
            interval = first.metrics[metric]["micro" if name == "MRR" else name]
            covered[name] += interval["low"] <= truth <= interval["high"]
        difference = judge.compare([first, second], [Comparison(0, 1, ("hit@1",))])[0]
        called += difference["verdict"] != "unresolved"
    assert all(0.93 <= count / trials <= 0.97 for count in covered.values()), covered
    assert called / trials <= 0.06
