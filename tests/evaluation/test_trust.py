"""Where a row can be trusted: planted ranges of energy are found, luck is not, and words and figures say the same."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbed.evaluation import trust as module
from ionbed.evaluation.judged import Judged
from ionbed.evaluation.outcomes import PerQuery
from ionbed.evaluation.report.page import trust_of
from ionbed.evaluation.report.strata_figures import (
    ABOVE_LOOKUP,
    ABOVE_RANDOM,
    similarity_drawings,
    strata_drawings,
    trust_drawings,
)
from ionbed.evaluation.report.trust import range_words, trust_sentences
from ionbed.evaluation.statistics import BootstrapOptions, holm
from ionbed.evaluation.trust import FEWEST_MOLECULES, GRIDS, LOOKUP, MOST_BINS, RANDOM, SMALLEST_BIN, trust_tree

BOOTSTRAP = BootstrapOptions(resamples=200)
CHANCE = 0.3


def row(name: str, *trainings: np.ndarray, counted: np.ndarray | None = None) -> Judged:
    """A row whose hit@1 is given, query by query, in each training; chance is `CHANCE` everywhere."""

    def one(value: np.ndarray, parts: tuple[Judged, ...] = ()) -> Judged:
        random = np.full(len(value), CHANCE)
        per_query = {"hit@1": PerQuery(value, random, value, value)}
        of = {"hit@1": np.arange(len(value)) if counted is None else counted}
        return Judged(name, {}, {}, {}, per_query, of, pa.table({}), None, None, len(trainings), {}, parts)

    parts = tuple(one(np.asarray(value, np.float64)) for value in trainings)
    return parts[0] if len(parts) == 1 else one(np.mean(trainings, axis=0), parts)


def queries(
    seed: int, num_molecules: int = 150, per_molecule: int = 4
) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Molecule and collision energy of each query; every tenth energy is not known."""
    rng = np.random.default_rng(seed)
    molecule = np.repeat(np.arange(num_molecules), per_molecule)
    energy = np.round(rng.uniform(0, 80, len(molecule)))  # many lie on a border
    energy[::10] = np.nan
    return molecule, energy, rng


def by_energy(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["by"]["collision_energy"]


def test_the_range_in_which_a_row_knows_something_is_found() -> None:
    molecule, energy, rng = queries(10)
    knows = (energy >= 20) & (energy < 50)
    own = row("own", rng.random(len(energy)) < np.where(knows, 0.9, CHANCE))
    lookup = row("look-up", rng.random(len(energy)) < np.where(energy < 35, 0.9, CHANCE))
    tree = trust_tree("hit@1", own, lookup, {"collision_energy": energy}, molecule, BOOTSTRAP, seed=0)
    found = by_energy(tree)
    (above,) = found["ranges"][RANDOM]
    assert abs(above["from"] - 20) <= 5
    assert abs(above["to"] - 50) <= 5
    assert above["verdict"] == "beats"
    within = [one for one in found["bins"] if above["from"] <= one["from"] < above["to"]]
    assert above["queries"] == sum(one["queries"] for one in within)
    assert above["value"]["value"] == pytest.approx(0.9, abs=0.08)
    assert above["value"]["low"] < 0.9 < above["value"]["high"]
    verdicts = [one["verdict"] for one in found["ranges"][LOOKUP]]
    assert verdicts == ["loses", "beats"]  # below 20 eV the look-up knows more, above 35 eV the row does
    everything = [*found["bins"], found["unknown"]]
    assert sum(one["queries"] for one in everything) == len(energy)
    for role in (RANDOM, LOOKUP):
        of_role = [one["above"][role] for one in everything]
        assert [one["p corrected"] for one in of_role] == holm([one["p"] for one in of_role])
    assert found["unknown"]["from"] is None
    json.dumps(tree, allow_nan=False)
    (sentence,) = trust_sentences("own", tree)
    assert sentence.startswith("By collision energy: hit@1 of 'own' is above chance from ")
    assert f"from {above['from']:g} to {above['to']:g} eV ({above['value']['value']:.3f}" in sentence
    assert "not told apart from it elsewhere" in sentence
    assert "above the best look-up ('look-up') from" in sentence
    assert "for 60 queries it is not known" in sentence


def test_a_range_is_measured_whole() -> None:
    molecule, energy, rng = queries(1)
    own = row("own", rng.random(len(energy)) < 0.95)
    found = by_energy(trust_tree("hit@1", own, None, {"collision_energy": energy}, molecule, BOOTSTRAP, seed=0))
    (above,) = found["ranges"][RANDOM]
    known = ~np.isnan(energy)
    assert above["queries"] == known.sum()
    assert above["value"]["value"] == pytest.approx(own.per_query["hit@1"].value[known].mean())
    assert (above["from"], above["to"]) == (pytest.approx(np.nanmin(energy)), pytest.approx(np.nanmax(energy)))
    assert LOOKUP not in found["ranges"]
    (sentence,) = trust_sentences("own", {"metric": "hit@1", "against": None, "by": {"collision_energy": found}})
    assert "above chance throughout" in sentence


def test_who_guesses_is_nowhere_above_chance() -> None:
    molecule, energy, _ = queries(2)
    own = row("constant", np.full(len(energy), CHANCE))
    tree = trust_tree("hit@1", own, own, {"collision_energy": energy}, molecule, BOOTSTRAP, seed=0)
    assert by_energy(tree)["ranges"] == {RANDOM: [], LOOKUP: []}
    (sentence,) = trust_sentences("constant", tree)
    assert "nowhere told apart from chance" in sentence
    assert "nowhere told apart from the best look-up" in sentence


def test_luck_is_rarely_taken_for_knowledge() -> None:
    """Of rows that are right as often as chance, whatever the energy, at most about one in twenty has any verdict."""
    fooled = 0
    for seed in range(40):
        molecule, energy, rng = queries(seed)
        lucky = rng.random(150)[molecule] < 0.5  # molecules differ: their queries are not independent
        own = row("lucky", rng.random(len(energy)) < np.where(lucky, CHANCE + 0.2, CHANCE - 0.2))
        found = by_energy(trust_tree("hit@1", own, None, {"collision_energy": energy}, molecule, BOOTSTRAP, seed=0))
        fooled += bool(found["ranges"][RANDOM])
    assert fooled <= 4


def test_trainings_that_disagree_are_trusted_less() -> None:
    molecule, energy, rng = queries(3)
    values = {"collision_energy": energy}
    trainings = [rng.random(len(energy)) < rate for rate in (0.1, 0.5, 0.9)]
    together = by_energy(trust_tree("hit@1", row("own", *trainings), None, values, molecule, BOOTSTRAP, seed=0))
    mean = by_energy(
        trust_tree("hit@1", row("own", np.mean(trainings, axis=0)), None, values, molecule, BOOTSTRAP, seed=0)
    )
    assert mean["ranges"][RANDOM]
    assert not together["ranges"][RANDOM]
    for one, other in zip(together["bins"], mean["bins"], strict=True):
        assert one["value"]["value"] == pytest.approx(other["value"]["value"])
        assert one["value"]["high"] - one["value"]["low"] > other["value"]["high"] - other["value"]["low"]
        assert one["above"][RANDOM]["p"] > 0.1 > other["above"][RANDOM]["p"]


def test_clusters_of_molecules_are_resampled_as_one() -> None:
    molecule, energy, rng = queries(7)
    cluster = np.arange(150) // 10
    own = row("own", rng.random(15)[cluster[molecule]] < 0.6)  # a cluster is right on all of its queries, or on none
    args = ("hit@1", own, None, {"collision_energy": energy}, molecule, BOOTSTRAP)
    of_clusters = by_energy(trust_tree(*args, seed=0, unit=cluster))
    of_molecules = by_energy(trust_tree(*args, seed=0))
    for one, other in zip(of_clusters["bins"], of_molecules["bins"], strict=True):
        assert one["molecules"] == other["molecules"]
        assert one["value"]["high"] - one["value"]["low"] > 1.5 * (other["value"]["high"] - other["value"]["low"])
        assert one["above"][RANDOM]["p"] > other["above"][RANDOM]["p"]


def test_a_range_is_named_by_where_it_lies() -> None:
    bins = [{"from": 2.0, "to": 10.0}, {"from": 10.0, "to": 1250.0}, {"from": 1250.0, "to": 1500.0}]
    words = [range_words("precursor_mz", one, bins) for one in bins]
    assert words == ["below 10 Da", "from 10 to 1250 Da", "from 1250 Da on"]
    assert range_words("num_peaks", {"from": 2.0, "to": 1500.0}, bins) == "throughout (2 to 1500)"


def test_only_queries_that_count_are_told_apart() -> None:
    molecule, energy, rng = queries(4)
    counted = np.flatnonzero(rng.random(len(energy)) < 0.5)
    own = row("own", rng.random(len(counted)) < 0.9, counted=counted)
    found = by_energy(trust_tree("hit@1", own, None, {"collision_energy": energy}, molecule, BOOTSTRAP, seed=0))
    shown = sum(one["queries"] for one in [*found["bins"], *([found["unknown"]] if found["unknown"] else [])])
    assert shown + found["queries in bins too small"] == len(counted)


def test_too_few_queries_make_no_bin() -> None:
    molecule, energy, _ = queries(5, num_molecules=8)
    own = row("own", np.ones(len(energy)))
    tree = trust_tree("hit@1", own, None, {"collision_energy": energy}, molecule, BOOTSTRAP, seed=0)
    assert by_energy(tree)["bins"] == []
    assert by_energy(tree)["queries in bins too small"] == len(energy)
    assert trust_sentences("own", tree) == []


@given(st.integers(0, 2**31), st.integers(0, 800), st.sampled_from(sorted(GRIDS)))
@settings(max_examples=60, deadline=None)
def test_every_known_number_is_in_one_bin_that_is_large_enough(seed: int, count: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    grid = GRIDS[name]
    numbers = np.round(rng.choice([rng.exponential(grid.mean(), count), rng.choice(grid, count)]), 2)
    numbers[rng.random(count) < 0.1] = np.nan
    molecule = rng.integers(max(1, count // 3), size=count)
    found = list(module._bins(numbers, molecule, grid))
    for place, (members, (begin, end)) in enumerate(found):
        assert len(members) >= SMALLEST_BIN
        assert len(np.unique(molecule[members])) >= FEWEST_MOLECULES
        assert (begin is None) == (place == 0)
        assert (end is None) == (place == len(found) - 1)
        assert begin is None or (numbers[members] >= begin).all()
        assert end is None or (numbers[members] < end).all()
    assert len(found) <= MOST_BINS
    if found:
        together = np.concatenate([members for members, _ in found])
        assert sorted(together.tolist()) == np.flatnonzero(~np.isnan(numbers)).tolist()


@pytest.fixture(scope="module")
def question() -> dict[str, Any]:
    """A question of results.json with a model, a look-up and chance, all of whose figures can be drawn."""
    molecule, energy, rng = queries(6)
    values = {
        "collision_energy": energy,
        "num_peaks": rng.integers(1, 100, len(energy)).astype(float),
        "nearest_train_tanimoto": rng.uniform(0.2, 1, len(energy)),
    }
    knows = np.where(energy < 40, CHANCE, 0.9)
    lookup = row("entropy", rng.random(len(energy)) < 0.6)
    model = row("model", rng.random(len(energy)) < knows)
    rows = []
    for kind, judged, against in (("learned", model, lookup), ("look-up", lookup, None), ("reference", None, None)):
        cells = {
            f"cell {number}": {
                "queries": 100 - number,
                "micro": {"value": 0.5, "low": 0.4, "high": 0.6},
                "random": CHANCE,
            }
            for number in range(15)
        }
        trust = None
        if judged is not None:
            trust = trust_tree("hit@1", judged, against, values, molecule, BOOTSTRAP, seed=0)
        rows.append(
            {
                "label": judged.name if judged else "random",
                "kind": kind,
                "metrics": {"hit@1": {"micro": {"value": 0.6}}},
                "strata": {
                    "adduct": {"metric": "hit@1", "cells": cells, "queries in cells too small": 0},
                    "polarity": {"metric": "hit@1", "cells": dict([*cells.items()][:1])},
                },
                "trust": trust,
            }
        )
    return {"main": "hit@1", "rows": json.loads(json.dumps(rows))}


@pytest.fixture(scope="module")
def by_number(question) -> list[Any]:
    return trust_drawings("library search", question)


def words_of(panel: str) -> str:
    return " ".join(ET.fromstring(panel).itertext())


def test_a_stratum_is_drawn_with_its_largest_cells(question) -> None:
    (drawing,) = strata_drawings("library search", question)
    (panel,) = drawing.panels  # a stratum of one cell tells nothing apart
    assert "adduct" in words_of(panel)
    assert "cell 0 (100)" in words_of(panel)
    assert "cell 11 (89)" in words_of(panel)
    assert "cell 12 " not in words_of(panel)
    assert [meaning for _, _, meaning in drawing.key] == ["model", "entropy", "guessing"]
    assert drawing.task == "library search"


def test_trust_is_drawn_by_energy_first_and_similarity_by_itself(question, by_number) -> None:
    energy, other = by_number
    assert len(energy.panels) == len(other.panels) == 1  # the model, with the best look-up in its panel
    assert "collision energy (eV)" in words_of(energy.panels[0])
    assert "number of peaks" in words_of(other.panels[0])
    meanings = [meaning for _, _, meaning in energy.key]
    assert len(meanings) == len(set(meanings))
    assert "best look-up: entropy" in meanings
    (similarity,) = similarity_drawings("library search", question)
    assert "nearest training molecule" in words_of(similarity.panels[0])


def test_the_bar_stands_where_the_row_is_above(question, by_number) -> None:
    (panel,) = by_number[0].panels
    assert ABOVE_RANDOM in panel
    assert ABOVE_LOOKUP in panel
    silent = json.loads(json.dumps(question))
    del silent["rows"][0]["trust"]["by"]["num_peaks"]
    silent["rows"][0]["trust"]["by"]["collision_energy"]["ranges"] = {RANDOM: [], LOOKUP: []}
    ((panel,),) = (drawing.panels for drawing in trust_drawings("library search", silent))
    assert ABOVE_RANDOM not in panel
    assert ABOVE_LOOKUP not in panel


def test_where_there_is_no_model_the_best_look_up_is_drawn(question) -> None:
    """It is compared with chance alone."""
    energy, *_ = trust_drawings("library search", {**question, "rows": question["rows"][1:]})
    assert "entropy" in words_of(energy.panels[0])
    assert ABOVE_RANDOM in energy.panels[0]
    assert ABOVE_LOOKUP not in energy.panels[0]


def test_a_row_whose_audit_failed_is_not_trusted(question) -> None:
    model = question["rows"][0]
    assert trust_of({**model, "void": None})
    assert trust_of({**model, "void": "it sees the truth"}) == []
    void = {**question, "rows": [{**model, "void": "it sees the truth"}, *question["rows"][1:]]}
    energy, *_ = trust_drawings("library search", void)
    assert "model" not in [meaning for _, _, meaning in energy.key]


def test_without_anything_to_draw_nothing_is_drawn(question) -> None:
    bare = {"main": "hit@1", "rows": [{**one, "strata": {}, "trust": None} for one in question["rows"]]}
    assert strata_drawings("x", bare) == trust_drawings("x", bare) == similarity_drawings("x", bare) == []
