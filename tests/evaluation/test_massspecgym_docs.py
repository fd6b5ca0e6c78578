"""The page on MassSpecGym runs as it stands, from the benchmark's files to its form of answers and back."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ionbed.cli import main
from ionbed.configs.loading import load_config
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.finetune.config import FinetuneConfig
from ionbed.spectra.molecules import standardise
from ionbed.spectra.split import Split

PAGE = (Path(__file__).parents[2] / "docs" / "massspecgym.md").read_text(encoding="utf-8")
MOLECULES = {"CCCCO": "test", "CCCCN": "test", "CC(=O)CC": "test", "CCCCCCO": "train", "CCCCCCN": "train",
             "CCOC(=O)CCO": "train", "Nc1ccccc1C": "val"}  # fmt: skip
LISTS = {
    "CCCCO": ["CCCCO", "CC(C)CO", "CCOCC"],
    "CCCCN": ["CCCCN", "CCNCC", "CC(C)CN", "C((", "CN(C)CC"],
    "CC(=O)CC": ["CC(=O)CC"],
}


def commands() -> list[list[str]]:
    """Return the words of every ionbed command of the page, in their order."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in blocks.splitlines() if line.startswith("$ ionbed")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def write_benchmark(folder: Path) -> None:
    (folder / "massspecgym").mkdir()
    (folder / "massspecgym-candidates").mkdir()
    columns = ("identifier", "mzs", "intensities", "smiles", "precursor_mz", "adduct", "fold")
    lines = ["\t".join(columns)]
    for number, (smiles, fold) in enumerate(MOLECULES.items()):
        for copy in range(2):
            peaks = ",".join(str(50.5 + 3.1 * number + copy + 10 * place) for place in range(3))
            mz = f"{standardise(smiles).exact_mass + 1.007276:.4f}"
            row = (f"MassSpecGymID{2 * number + copy:07d}", peaks, "0.4,1.0,0.7", smiles, mz, "[M+H]+", fold)
            lines.append("\t".join(row))
    (folder / "massspecgym" / "MassSpecGym.tsv").write_text("\n".join(lines) + "\n")
    (folder / "massspecgym-candidates" / "MassSpecGym_retrieval_candidates_mass.json").write_text(json.dumps(LISTS))


def save_model(folder: Path, split: Split) -> None:
    stage = {"command": "finetune", "split": split.hash, "folds": ["train"]}
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_mz_wavelengths": 8, "embedding_dim": 8}
    IonbedModel(IonbedConfig(**sizes, molecule_tower=8, training=[stage])).save_pretrained(folder)


@pytest.mark.filterwarnings("ignore")
def test_the_commands_of_the_page_run_as_they_stand(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_benchmark(tmp_path)
    quick = {
        "evaluate": ["--set", "trained_baselines.trainings=0", "--set", "mces.max_queries=0", "--set", "workers=1",
                     "--set", "bootstrap.resamples=100", "--set", "audits.control_queries=0"],
        "task": ["--set", "trained_baselines.trainings=0", "--set", "workers=1"],
        "prepare": ["--workers", "1"],
        "score": ["--resamples", "100"],
    }  # fmt: skip
    found = [words[0] for words in commands()]
    assert found == ["data", "data", "prepare", "split", "finetune", "evaluate", "task", "score", "score"]
    for words in commands():
        if words[0] == "data":
            continue
        if words[0] == "finetune":  # its keys are right; a model stands for what it would train
            overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
            assert load_config(FinetuneConfig, words[1], overrides).molecules.weight == 1
            save_model(tmp_path / "runs" / "massspecgym" / "model", Split.load("split.json"))
            continue
        if words[1] == "theirs.parquet":  # as another tool would have it: what our own model was just written as
            (tmp_path / "scored" / "ranked-lists.parquet").rename("theirs.parquet")
            Path("theirs.yaml").write_text("name: theirs\nknown: [precursor_mz]\ntrained_on: []\n")
        assert main([*words, *quick.get(words[0], [])]) == 0, words

    (task,) = json.loads((tmp_path / "by-mass" / "results.json").read_text())["tasks"].values()
    assert task["counts"]["queries"] == 6
    rows = {row["label"]: row["metrics"] for row in task["rows"]}
    assert {"model", "model, analogue transfer", "random"} <= rows.keys()
    # The model's answers are the same through all four doors: evaluate, its scores, their form and back.
    doors = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("scored", "compared")]
    assert doors[0]["tool"]["name"] == "mine" and doors[1]["tool"]["name"] == "theirs"
    for metric in ("hit@1", "hit@5", "hit@20", "MRR", "Tanimoto@1"):
        values = [metrics[metric]["micro"]["value"] for metrics in (rows["model"], *(d["metrics"] for d in doors))]
        assert values == pytest.approx([values[0]] * 3), metric
    table = pq.read_table("theirs.parquet").to_pylist()
    assert {row["identifier"] for row in table} == {f"MassSpecGymID{number:07d}" for number in range(6)}
    assert all(set(row["sorted_candidate_smiles"]) in map(set, LISTS.values()) for row in table)
