"""The model card: what a model is, what it was trained on, how, and what is known of it, written from its run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..artifacts import read_manifest
from ..encoder.configuration_ionbed import IonbedConfig
from ..errors import InputError
from ..spectra.public_data.folder import COMMAND
from ..spectra.public_data.registry import load_registry
from .licenses import RULE, model_license
from .sources import licenses_of

CARD = "README.md"

PLACE = "FOLDER_OR_HUB_ID"
"""Stands in the examples of a card for where the model is, until it is pushed somewhere."""

USE = f"""\
## Use

```python
import ionbed

model = ionbed.load_model("{PLACE}")
vectors = model.embed(ionbed.read("spectra.mgf"))
```

With `transformers`, where ionbed is installed, either of:

```python
from ionbed.encoder.modeling_ionbed import IonbedModel  # makes the architecture known to AutoModel
from transformers import AutoModel

model = AutoModel.from_pretrained("{PLACE}")
```

```python
from transformers import AutoModel

model = AutoModel.from_pretrained("{PLACE}", trust_remote_code=True)  # the code is one import of ionbed
```"""

STAGE_WORDS = {
    "pretrain": "masked-peak pretraining",
    "finetune": "contrastive fine-tuning for retrieval",
    "classification": "training on labels (classification)",
    "multi-label": "training on labels (several yes/no labels)",
    "regression": "training on labels (regression)",
}
"""By the task of a stage that has one, else by its command."""

EVALUATION_BEGINS, EVALUATION_ENDS = "<!-- evaluation: written by 'ionbed card' -->", "<!-- end of evaluation -->"

NOT_EVALUATED = """\
Not evaluated. `ionbed evaluate` measures a model beside plain look-ups on molecules that it has not seen;
`ionbed card MODEL --evaluation REPORT` writes the figures here."""

ABOUT_DATA = ("description", "citation", "homepage")
"""What a card tells of a public data set."""

PRIVATE = {"output": None, "data": ("store", "split"), "init": ("model",), "labels": ("file",)}
"""Options that name places on the machine of the training, which are nobody else's business."""


def model_card(config: IonbedConfig, num_parameters: int, model_hash: str, run: Mapping[str, Any] | None) -> str:
    """Return the Markdown of a model card with YAML metadata, as the Hugging Face hub reads it.

    Parameters
    ----------
    config : IonbedConfig
        Its ``training`` tells every stage.
    run : mapping, optional
        The manifest of the run of the last stage. What it does not hold is left out of the card.
    """
    stages = config.training
    run = run or {}
    license_ = model_license(licenses_of(stages))
    how = (
        " and ".join(STAGE_WORDS.get(stage.get("task", stage.get("command", "")), "training") for stage in stages)
        or "unknown training"
    )
    metadata: dict[str, Any] = {"library_name": "ionbed", "license": license_.identifier}
    if license_.identifier == "other":
        metadata["license_name"] = "licences-of-the-training-data"
    metadata["tags"] = ["mass-spectrometry", "tandem-mass-spectrometry", "metabolomics", "embeddings", "ionbed"]
    citations = list({c["citation"]: c for stage in stages for c in stage.get("citations", ())}.values())
    if datasets := hub_datasets(citations):
        metadata["datasets"] = datasets
    front = yaml.safe_dump(metadata, sort_keys=False, default_flow_style=None, width=120)
    parts = [
        f"---\n{front}---",
        f"# An ionbed encoder of tandem mass spectra\n\n"
        f"{num_parameters / 1e6:,.1f} million parameters, from {how}. It maps a tandem mass spectrum (MS/MS) of a "
        f"small molecule to a unit vector of {config.output_dim} dimensions."
        + (
            " It maps structures (SMILES) to the same space: the inner product tells how well one fits a spectrum."
            if config.molecule_tower
            else ""
        ),
        USE,
        "## Training\n\n" + _training(stages, run),
        f"## Evaluation\n\n{evaluation_block(NOT_EVALUATED)}",
        "## Limits\n\n" + _limits(config, stages),
        "## Data and licences\n\n" + _data(stages, license_.identifier, license_.reason, citations),
        "## Options\n\n" + _options(model_hash, run),
    ]
    return "\n\n".join(parts) + "\n"


def _training(stages: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> str:
    if not stages:
        return "Not recorded."
    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("spectra", lambda s: _count(s, "spectra")),
        ("predicted by a program, not measured", lambda s: _count(s, "predicted") if s.get("predicted") else "-"),
        ("molecules", lambda s: _count(s, "molecules")),
        ("split (hash)", lambda s: f"`{s['split'][:12]}`" if s.get("split") else "none"),
        ("folds", lambda s: ", ".join(s.get("folds") or ()) or "all spectra"),
        ("share of the molecules, drawn (seed)", _share),
        ("steps", lambda s: _count(s, "steps")),
        ("size of a step", lambda s: str(s.get("batch", "-"))),
        ("spectra seen", lambda s: _count(s, "spectra_seen")),
        ("peaks seen, with one token for each precursor", lambda s: _count(s, "tokens_seen")),
        ("hours", lambda s: _hours(s["seconds"]) if s.get("seconds") is not None else "-"),
        ("spectra per second", lambda s: f"{s['spectra_seen'] / s['seconds']:,.0f}" if s.get("seconds") else "-"),
        ("steps skipped (gradient not finite)", lambda s: _count(s, "skipped_steps")),
        ("share of the measured matrix-product peak, median", lambda s: f"{s['mfu']:.1%}" if s.get("mfu") else "-"),
        ("precision", lambda s: _cell(s.get("precision", "-"))),
        ("hardware", lambda s: _cell(s.get("hardware", "-"))),
        ("data (hash of each shard)", lambda s: ", ".join(f"`{h[:12]}`" for h in _some(s.get("store", ()))) or "-"),
    ]
    cells = [[name, *(cell(stage) for stage in stages)] for name, cell in rows]
    kept = [row for row in cells if any(value != "-" for value in row[1:])]
    text = _table(["", *(_cell(stage.get("command", "-")) for stage in stages)], kept, align_right=False)
    text += "\n\nHours and rates are those of training, not of validation and checkpoints; the hardware is the last."
    losses = run.get("validation") or {}
    last = run.get("last_losses") or {}
    if names := sorted({*losses, *last}, key=lambda name: (name != "loss", name)):
        shown = [[f"`{n}`", *(f"{of[n]:.4f}" if n in of else "-" for of in (last, losses))] for n in names]
        text += "\n\nLosses at the end of the last stage:\n\n"
        text += _table(["", "training, last logged", "validation"], shown)
    return text


def _share(stage: Mapping[str, Any]) -> str:
    share = stage.get("molecules_share")
    return "-" if share is None else f"{share:.4g} ({stage.get('molecules_seed', '-')})"


def _limits(config: IonbedConfig, stages: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        {
            "hidden": "It does not see the precursor m/z; combine it with a precursor window.",
            "relative": "It sees neutral losses, but not the precursor m/z itself; combine it with a window.",
            "full": "It sees the precursor m/z: vectors of spectra with one precursor are alike for that alone.",
        }[config.precursor],
        f"It reads the {config.max_peaks} most intense peaks of a spectrum, those of at least "
        f"{config.min_intensity:.2%} of the base peak.",
        "A score is a similarity, not a probability, and no identification.",
        "Its behaviour on kinds of molecules, adducts and instruments that its data hold few of has not been measured, "
        "unless the evaluation above says so.",
    ]
    if predicted := [stage for stage in stages if stage.get("predicted")]:
        how = "; ".join(f"{s.get('command', 'training')}: {s['predicted'] / s['spectra']:.0%}" for s in predicted)
        lines.append(f"It was trained on spectra that a program predicted and no instrument measured ({how}).")
    if not any(stage.get("command") == "finetune" and "task" not in stage for stage in stages):
        lines.append("It was not trained to tell molecules apart; fine-tune it (`ionbed finetune`) for retrieval.")
    if any(stage.get("split") is None for stage in stages) or not stages:
        lines.append("No molecules were held out from all of its training: it can be tested on new data only.")
    return "\n".join(f"- {line}" for line in lines)


def _data(
    stages: Sequence[Mapping[str, Any]], identifier: str, reason: str, citations: Sequence[Mapping[str, str]]
) -> str:
    text = f"The weights: **{identifier}**; {reason}.\n\n{RULE}"
    unrecorded = [str(stage.get("command", "training")) for stage in stages if not stage.get("sources")]
    if unrecorded or not stages:
        text += f"\n\nWhose spectra were used is not recorded ({', '.join(unrecorded) or 'nothing about training is'})."
    sources = [stage.get("sources") or {} for stage in stages]
    names = sorted({name for of_stage in sources for name in of_stage})
    if names:
        commands = [_cell(stage.get("command", "-")) for stage in stages]
        totals = [[_cell(name), *(_total(of_stage.get(name)) for of_stage in sources)] for name in names]
        text += "\n\nSpectra by licence:\n\n" + _table(["licence", *commands], totals)
        pairs = sorted({(who, name) for of_stage in sources for name, of in of_stage.items() for who in of})
        by_contributor = [
            [_cell(who), _cell(name), *(f"{of_stage.get(name, {}).get(who, 0):,}" for of_stage in sources)]
            for who, name in pairs
        ]
        text += "\n\nAttribution: the spectra were contributed by\n\n"
        text += _table(["contributor", "licence", *commands], by_contributor, text_columns=2)
    if citations:
        text += "\n\nCite the sources of the data:\n\n"
        text += "\n".join(f"- {_cell(entry['description'])}: {_cell(entry['citation'])}" for entry in citations)
    return text


def _options(model_hash: str, run: Mapping[str, Any]) -> str:
    text = f"Model hash `{model_hash}` (weights and preprocessing; an index refuses another)."
    if "ionbed_version" in run:
        text += f" Trained with ionbed {run['ionbed_version']}, torch {run.get('torch', 'unknown')}."
    if options := run.get("config"):
        tree = yaml.safe_dump(public_options(options), sort_keys=False, default_flow_style=None, width=110)
        text += f"\n\nThe last stage, as `ionbed configs` explains it:\n\n```yaml\n{tree}```"
    return text


def public_options(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run without the names of places on its machine (`PRIVATE`).

    The shape of an encoder that was not made, since a trained one was given (``init.random``), is left out too.
    """
    if (init := tree.get("init")) and init.get("model") is not None:
        tree = {**tree, "init": {name: value for name, value in init.items() if name != "random"}}
    kept = {}
    for name, value in tree.items():
        hidden = PRIVATE.get(name, ())
        if hidden is not None:
            kept[name] = {k: v for k, v in value.items() if k not in hidden} if isinstance(value, Mapping) else value
    return kept


def evaluation_block(text: str) -> str:
    """Return the text of an evaluation between the marks by which `with_evaluation` finds it again."""
    return f"{EVALUATION_BEGINS}\n{text}\n{EVALUATION_ENDS}"


def with_evaluation(card: str, text: str) -> str:
    """Return ``card`` with its evaluation replaced by ``text``; where it has none, added after what there is."""
    block = evaluation_block(text)
    marked = re.compile(f"{re.escape(EVALUATION_BEGINS)}.*?{re.escape(EVALUATION_ENDS)}", re.DOTALL)
    if marked.search(card):
        return marked.sub(lambda _: block, card, count=1)
    return f"{card.rstrip()}\n\n## Evaluation\n\n{block}\n"


def card_metadata(card: str) -> dict[str, Any]:
    """Return the YAML metadata at the head of a card.

    Raises
    ------
    InputError
        It has none, or they cannot be read.
    """
    found = re.match(r"---\r?\n(.*?)\r?\n---(?:\r?\n|$)", card, re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        raise InputError(
            f"{CARD}: its metadata are no YAML ({' '.join(str(error).split())[:100]}); mend them"
        ) from None
    if not isinstance(metadata, dict):
        raise InputError(f"{CARD}: has no metadata between two lines '---'; write it anew by 'ionbed card'")
    return metadata


def hub_datasets(citations: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the hub ids of the public data sets among the sources that have one."""
    found = (re.fullmatch(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)", c["homepage"]) for c in citations)
    return sorted({match[1] for match in found if match})


def citations_of(store_manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return description, citation and homepage of the public data sets among the inputs of a store.

    They are known by their checksum, or by the manifest that ``ionbed data get`` has left where the input still lies.
    """
    known = {file.sha256: vars(data) for data in load_registry().sets.values() for file in data.files if file.sha256}
    found: dict[str, dict[str, str]] = {}
    for entry in store_manifest.get("inputs", ()):
        about = known.get(entry["sha256"]) or _downloaded(Path(entry["path"]))
        if about and all(isinstance(about.get(key), str) for key in ABOUT_DATA):
            found[about["citation"]] = {key: about[key] for key in ABOUT_DATA}
    return list(found.values())


def _downloaded(path: Path) -> Mapping[str, Any] | None:
    """Return the manifest of 'ionbed data get' in a folder or beside a file, None where there is none to be read."""
    folder = path if path.is_dir() else path.parent
    try:
        return read_manifest(folder, made_by=COMMAND)
    except InputError:
        return None


def _count(stage: Mapping[str, Any], name: str) -> str:
    return f"{stage[name]:,}" if stage.get(name) is not None else "-"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.2f}" if hours >= 0.005 else "less than 0.01"


def _total(contributors: Mapping[str, int] | None) -> str:
    return f"{sum((contributors or {}).values()):,}"


def _some(values: Sequence[str], most: int = 8) -> list[str]:
    return [*values[:most], *(["..."] if len(values) > most else [])]


def _cell(value: Any) -> str:
    """Return a value as it can stand in a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", r"\|").replace("<", "&lt;")


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, align_right: bool = True, text_columns: int = 1
) -> str:
    rule = ["---:" if align_right and number >= text_columns else "---" for number in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
