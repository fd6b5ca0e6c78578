"""The model card that a run writes: every number from the run, every contributor, and the strictest licence."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from ionbed.artifacts import sha256_of_file, write_manifest
from ionbed.configs.loading import load_config
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.errors import InputError
from ionbed.pretrain.card import card_metadata, citations_of, hub_datasets, model_card, public_options, with_evaluation
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.licenses import conditions, model_license
from ionbed.pretrain.provenance import data_record, hardware, last_losses
from ionbed.pretrain.run import pretrain
from ionbed.pretrain.sources import licenses_of, sources_of
from ionbed.spectra.store import SHARD_NAME, Store, table_from_spectra, write_shard


def write_licensed(store: Path, folder: Path, *, without: int | None = None) -> Path:
    """Write the small store with licences, some spectra without a laboratory, and one without a licence."""
    folder.mkdir()
    spectra = []
    for number, spectrum in enumerate(Store(store)):
        license_ = "CC BY-SA" if spectrum.laboratory == "B" else "CC0" if number % 4 else "CC BY"
        laboratory = None if number % 6 == 0 else spectrum.laboratory
        source = "deep/library.tar.gz!A/record.txt" if number % 12 == 0 else "deep/folder/b.mgf"
        license_ = None if number == without else license_
        spectra.append(replace(spectrum, license=license_, laboratory=laboratory, source_file=source))
    shards = []
    for number, part in enumerate((spectra[:50], spectra[50:100], spectra[100:])):
        name = SHARD_NAME.format(number)
        write_shard(table_from_spectra(part), folder / name)
        shards.append({"file": name, "spectra": len(part), "sha256": sha256_of_file(folder / name)})
    counts = {"read": len(spectra), "kept": len(spectra), "dropped": {}, "repaired": {}}
    write_manifest(folder, {"command": "prepare", "inputs": [], "options": {}, "counts": counts, "shards": shards})
    return folder


@pytest.fixture(scope="module")
def licensed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_licensed(store, tmp_path_factory.mktemp("licensed") / "store")


@pytest.mark.parametrize(
    ("names", "identifier", "restricted"),
    [
        (["CC0"], "cc0-1.0", ()),
        (["CC0 1.0 Universal", "public domain"], "cc0-1.0", ()),
        (["CC BY", "CC0"], "cc-by-4.0", ()),
        (["cc-by-4.0", "dl-de/by-2-0"], "cc-by-4.0", ()),
        (["MIT"], "mit", ()),
        (["MIT", "CC0"], "cc-by-4.0", ()),
        (["CC BY", "CC BY-SA 3.0", "CC0", "dl-de/by-2-0"], "cc-by-sa-4.0", ()),
        (["CC BY", "CC BY-NC"], "cc-by-nc-4.0", ("CC BY-NC",)),
        (["CC BY-NC-SA 4.0", "CC BY-NC"], "cc-by-nc-sa-4.0", ("CC BY-NC", "CC BY-NC-SA 4.0")),
        (["CC BY-SA", "CC BY-NC"], "other", ("CC BY-NC",)),
        (["CC BY-SA", "CC BY-NC-SA"], "other", ("CC BY-NC-SA",)),
        (["CC BY-ND", "CC0"], "other", ("CC BY-ND",)),
        (["CC BY-NC-ND"], "other", ("CC BY-NC-ND",)),
        (["https://creativecommons.org/licenses/by-nc/4.0/"], "cc-by-nc-4.0",
         ("https://creativecommons.org/licenses/by-nc/4.0/",)),
        (["CC BY", "ask us"], "other", ("ask us",)),
        (["CC BY 4.0 NC"], "other", ("CC BY 4.0 NC",)),
        (["cc-by-ncsa"], "other", ("cc-by-ncsa",)),
        ([], "other", ("not stated",)),
    ],
)  # fmt: skip
def test_the_strictest_licence_wins(names, identifier, restricted):
    found = model_license(names)
    assert (found.identifier, found.restricted) == (identifier, restricted)
    assert all(name in found.reason for name in restricted)


def test_what_licences_ask():
    assert conditions("CC BY-NC-SA 4.0") == {"attribution", "non-commercial", "share-alike"}
    assert conditions("CC0") == frozenset() and conditions("GPL-3.0") is None and conditions("not stated") is None


def test_every_spectrum_is_counted_for_its_contributor_and_licence(store, tmp_path):
    rows = np.random.default_rng(0).permutation(144)[:90]
    store = Store(write_licensed(store, tmp_path / "store", without=int(rows[0])))
    expected = Counter()
    for spectrum in store.spectra(rows):
        file = "library.tar.gz" if "!" in spectrum.source_file else "b.mgf"
        expected[spectrum.license or "not stated", spectrum.laboratory or file] += 1
    found = sources_of(store, rows)
    assert {(name, who): n for name, of in found.items() for who, n in of.items()} == expected
    assert list(found) == sorted(found) and "library.tar.gz" in found["CC BY"]
    assert sum(found["not stated"].values()) == 1
    assert sources_of(store, np.array([60])) == {
        (store.spectra()[60].license): {(store.spectra()[60].laboratory or "library.tar.gz"): 1}
    }


def test_small_contributors_beyond_the_most_are_counted_together(licensed, monkeypatch):
    from ionbed.pretrain import sources

    whole = sources_of(Store(licensed), np.arange(144))
    monkeypatch.setattr(sources, "MAX_CONTRIBUTORS", 1)
    cut = sources_of(Store(licensed), np.arange(144))
    for name in whole:
        assert sum(cut[name].values()) == sum(whole[name].values())
        assert len(cut[name]) == min(2, len(whole[name]))
    assert cut["CC BY"]["others"] == sum(whole["CC BY"].values()) - max(whole["CC BY"].values())


def run(store: Path, split: Path, output: Path, *changes: str) -> Path:
    sets = ["model.hidden_size=32", "model.num_layers=1", "model.num_heads=4", "model.num_mz_wavelengths=16",
            "training.steps=4", "training.warmup_steps=1", "training.batch_tokens=400", "training.threads=1",
            "training.log_every=1", f"data.store={store}", f"data.split={split}", f"output={output}"]  # fmt: skip
    return pretrain(load_config(PretrainConfig, "pretrain-tiny", [*sets, *changes]))


@pytest.fixture(scope="module")
def pretrained(licensed: Path, split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("carded") / "secret-place"
    run(licensed, split, output)
    return output


def test_a_run_writes_its_card_from_its_own_numbers(pretrained, licensed):
    card = (pretrained / "model" / "README.md").read_text()
    manifest = json.loads((pretrained / "manifest.json").read_text())
    log = [json.loads(line) for line in (pretrained / "log.jsonl").read_text().splitlines()]
    stage = manifest["training"]
    assert f"| steps | {manifest['steps']:,} |" in card and manifest["steps"] == 4
    assert f"| spectra seen | {manifest['spectra']:,} |" in card and stage["spectra_seen"] == manifest["spectra"]
    assert f"| spectra | {stage['spectra']:,} |" in card and f"| molecules | {stage['molecules']:,} |" in card
    assert f"`{stage['split'][:12]}`" in card and f"`{manifest['model_hash']}`" in card
    assert "| size of a step | 400 tokens |" in card and "1 process, " in card
    losses = [entry for entry in log if "loss" in entry]
    assert stage["mfu"] == pytest.approx(np.median([entry["mfu"] for entry in losses]), abs=1e-4)
    assert f"| share of the measured matrix-product peak, median | {stage['mfu']:.1%} |" in card
    assert f"| `loss` | {losses[-1]['loss']:.4f} | {manifest['validation']['loss']:.4f} |" in card
    assert f"| `mz_bin` | {losses[-1]['mz_bin']:.4f} | {manifest['validation']['mz_bin']:.4f} |" in card
    assert "Not evaluated" in card and "not trained to tell molecules apart" in card
    assert "secret-place" not in card and str(licensed) not in card  # places on the machine are nobody's business
    assert yaml.safe_load(re.search("```yaml\n(.*?)```", card, re.DOTALL)[1]) == public_options(manifest["config"])


def test_a_card_names_every_contributor(pretrained):
    card = (pretrained / "model" / "README.md").read_text()
    sources = json.loads((pretrained / "model" / "config.json").read_text())["training"][0]["sources"]
    rows = re.findall(r"^\| (\S.*?) \| (.*?) \| ([\d,]+) \|$", card, re.MULTILINE)
    assert set(rows) == {(who, name, f"{n:,}") for name, of in sources.items() for who, n in of.items()}
    assert (
        sum(n for of in sources.values() for n in of.values())
        == json.loads((pretrained / "manifest.json").read_text())["training"]["spectra"]
    )
    assert card_metadata(card)["license"] == "cc-by-sa-4.0" and "the strictest is CC BY-SA" in card


def test_fine_tuning_keeps_the_sources_of_what_came_before(pretrained, licensed, split, store, tmp_path):
    from ionbed.finetune.config import FinetuneConfig
    from ionbed.finetune.run import finetune

    free = tmp_path / "free"
    shutil.copytree(licensed, free)
    for shard in Store(free).shards:
        table = pq.read_table(shard)
        column = table.column_names.index("license")
        write_shard(table.set_column(column, table.schema.field(column), [["CC BY-NC"] * len(table)]), shard)
    manifest = json.loads((free / "manifest.json").read_text())
    manifest["shards"] = [{**s, "sha256": sha256_of_file(free / s["file"])} for s in manifest["shards"]]
    write_manifest(free, {name: value for name, value in manifest.items() if name != "ionbed_version"})
    sets = ["training.steps=2", "training.warmup_steps=1", "training.threads=1", "sampling.anchors=4",
            "init.embedding_dim=16", f"init.model={pretrained / 'model'}", "data.validation_spectra=0",
            f"data.store={free}", f"data.split={split}", f"output={tmp_path / 'tuned'}"]  # fmt: skip
    finetune(load_config(FinetuneConfig, "finetune-tiny", sets))
    card = (tmp_path / "tuned" / "model" / "README.md").read_text()
    config = json.loads((tmp_path / "tuned" / "model" / "config.json").read_text())
    assert [stage["command"] for stage in config["training"]] == ["pretrain", "finetune"]
    assert card_metadata(card)["license"] == "other"  # share-alike before, non-commercial now
    assert "CC BY-SA and CC BY-NC cannot be satisfied at once" in card
    assert "4 molecules of" in card and "| steps | 4 | 2 |" in card
    assert str(pretrained) not in card and "does not see the precursor m/z" in card
    assert "not trained to tell" not in card
    assert "random" not in yaml.safe_load(re.search("```yaml\n(.*?)```", card, re.DOTALL)[1])["init"]
    losses = card.split("Losses at the end")[1]
    assert all(f"| `{term}` |" in losses for term in ("loss", "contrast", "structure"))  # not validated


def test_a_card_says_that_spectra_were_predicted(licensed, pretrained, tmp_path):
    assert "predicted" not in (pretrained / "model" / "README.md").read_text()
    store = tmp_path / "store"
    shutil.copytree(licensed, store)
    shard = Store(store).shards[0]
    table = pq.read_table(shard)
    column = table.column_names.index("predicted")
    values = [row < 30 for row in range(len(table))]
    write_shard(table.set_column(column, table.schema.field(column), [values]), shard)
    record = data_record(store, Store(store).manifest, np.arange(20, 60))
    assert record["predicted"] == 10
    assert record["ranges"]["charges"] == {"+1": 1.0} and record["ranges"]["polarities"] == {"+1": 1.0}
    mz = table["precursor_mz"].to_numpy()[20:60]
    assert mz.min() - 0.01 < record["ranges"]["precursor_mz"][0] < record["ranges"]["precursor_mz"][1] < mz.max() + 0.01
    training = [{"command": "pretrain", "split": None, "spectra": 40, "predicted": 10}]
    card = model_card(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, training=training), 1, "ab", None)
    assert "| predicted by a program, not measured | 10 |" in card
    assert "that a program predicted and no instrument measured (pretrain: 25%)" in card


def test_options_of_an_encoder_from_random_weights_are_all_told():
    init = {"model": None, "random": {"hidden_size": 32}}
    assert public_options({"init": init}) == {"init": {"random": {"hidden_size": 32}}}
    assert public_options({"init": {**init, "model": "m"}}) == {"init": {}}


def test_a_store_that_has_changed_costs_the_sources_and_not_the_model(licensed, tmp_path, caplog):
    manifest = Store(licensed).manifest
    assert data_record(licensed, manifest, np.arange(9))["sources"]
    changed = {**manifest, "shards": [{**s, "sha256": "0"} for s in manifest["shards"]]}
    assert data_record(licensed, changed, np.arange(9)) == {}
    assert data_record(tmp_path / "gone", manifest, np.arange(9)) == {}
    assert caplog.text.count("cannot name its sources") == 2
    config = IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, training=[{"command": "pretrain", "split": None}])
    card = model_card(config, 1000, "ab", None)
    assert card_metadata(card)["license"] == "other" and "is not recorded (pretrain)" in card
    assert "No molecules were held out" in card and licenses_of(config.training) == ["not stated"]


def test_public_data_are_cited_by_checksum_and_by_download(tmp_path):
    known = "0c9cc50450def3f0d4fe2dc09dea1105fc15e635db8c6656bc3e3be37a3bcd95"
    entry = {"path": str(tmp_path / "x.tsv"), "sha256": known, "bytes": 1}
    (found,) = citations_of({"inputs": [entry, entry, {"path": "nowhere", "sha256": "0"}]})
    assert "MassSpecGym" in found["description"] + found["citation"]
    assert hub_datasets([found]) == ["roman-bushuiev/MassSpecGym"]
    about = {"description": "a set", "citation": "us, 2020", "homepage": "https://example.org"}
    write_manifest(tmp_path, {"command": "data get", "name": "set", **about})
    other = {"path": str(tmp_path / "spectra.mgf"), "sha256": "1", "bytes": 1}
    assert citations_of({"inputs": [other]}) == [about] and hub_datasets([about]) == []
    training = [{"command": "pretrain", "split": None, "citations": [found, about]}]
    card = model_card(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, training=training), 1, "ab", None)
    assert "- a set: us, 2020" in card and card_metadata(card)["datasets"] == ["roman-bushuiev/MassSpecGym"]


def test_an_evaluation_is_put_in_its_place_and_nothing_else_changes():
    card = model_card(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4), 1000, "ab", None)
    once = with_evaluation(card, r"figures \1 of one")
    assert "Not evaluated" not in once and r"figures \1 of one" in once
    assert with_evaluation(once, "others") == with_evaluation(card, "others")
    before, after = card.split("Not evaluated")[0], card.split("<!-- end of evaluation -->")[1]
    assert once.startswith(before) and once.endswith(after)
    own = "---\nlicense: mit\n---\n# mine\n"
    assert with_evaluation(own, "x").startswith(own) and "## Evaluation" in with_evaluation(own, "x")


def test_names_cannot_break_the_tables_of_a_card():
    sources = {"CC BY": {"a|b\nc <script>": 1}}
    training = [{"command": "pretrain", "split": None, "sources": sources}]
    card = model_card(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, training=training), 1, "ab", None)
    assert r"| a\|b c &lt;script> | CC BY | 1 |" in card


@pytest.mark.parametrize("head", ["no metadata", "---\n[1, 2]\n---\n", "---\na: [\n---\n"])
def test_metadata_that_cannot_be_read_are_named(head):
    with pytest.raises(InputError, match=r"README.md"):
        card_metadata(head)


def test_the_last_losses_are_those_of_the_last_whole_line(tmp_path):
    lines = [{"step": 1, "loss": 3.0, "mz_bin": 2.0}, {"step": 2, "loss": 2.0, "mz_bin": 1.0}, {"step": 2, "other": 1}]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    assert last_losses(path, ["mz_bin", "window"]) == {"loss": 2.0, "mz_bin": 1.0}
    assert last_losses(tmp_path / "none", []) == {}


def test_hardware_is_said_for_one_machine_and_for_several(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA H100")
    assert hardware(8, "cuda:0") == "8 processes on 2 nodes, NVIDIA H100"
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert re.fullmatch(r"1 process, .+, \d+ threads?( each)?", hardware(1, "cpu"))
