"""The row of a model says what the model reads, and all that any of its trainings was trained on."""

from __future__ import annotations

from types import SimpleNamespace

from ionbed.evaluation.rows import model_entry

STAGE = {"command": "finetune", "split": "a" * 64, "folds": ["train"]}


def test_the_row_of_a_model_says_which_conditions_it_reads(build: SimpleNamespace) -> None:
    plain, conditioned = (build.encoder(lambda columns, row: None, [STAGE]) for _ in range(2))
    conditioned.config.conditioning = ("polarity", "charge", "adduct", "collision_energy", "instrument")
    assert model_entry("plain", [plain], None).known == ("precursor_mz",)
    known = ("precursor_mz", "adduct", "collision_energy", "instrument")
    assert model_entry("conditioned", [conditioned], None).known == known
    assert model_entry("either", [plain, conditioned], None).known == known


def test_what_one_training_has_seen_the_row_has_seen(build: SimpleNamespace) -> None:
    pretrained = {"command": "pretrain", "split": None, "folds": []}
    trainings = [build.encoder(lambda columns, row: None, stages) for stages in ([STAGE], [pretrained, STAGE], [])]
    names = [corpus.name for corpus in model_entry("model", trainings, None).trained_on]
    assert names == ["finetune", "pretrain", "of unknown origin"]
