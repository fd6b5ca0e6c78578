"""Maps: coordinates that are known, a page that holds what it should and asks the network for nothing."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ionbed import cli
from ionbed.embeddings.embedded_input import of_index
from ionbed.embeddings.index import Index
from ionbed.embeddings.projection import project
from ionbed.embeddings.spectral_map import MapOptions, build_map, page_of, spectral_map
from ionbed.errors import InputError
from ionbed.spectra.spectrum import Spectrum

from .conftest import CountSketchModel, random_spectrum

CHROMIUM = Path("/usr/bin/chromium")
CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"


@pytest.fixture(scope="module")
def spectra() -> list[Spectrum]:
    rng = np.random.default_rng(2)
    families = [random_spectrum(rng, f"F{number}", polarity=1, charge=1) for number in range(4)]
    made = []
    for number, first in enumerate(families):
        for member in range(12):
            intensity = first.intensity * np.exp(0.2 * rng.normal(size=len(first))).astype(np.float32)
            made.append(
                dataclasses.replace(
                    first,
                    spectrum_id=f"S{number}-{member:02d}",
                    intensity=intensity / intensity.max(),
                    name=("caffeine </script><b>", "&amp; co", None, "plain")[number],
                    smiles=(CAFFEINE, "CCO", None, "not a structure")[number],
                    chemical_class=("Organic compounds; Benzenoids; Phenols", "Lipids", None, None)[number],
                    adduct="[M+H]+",
                    retention_time=60.0 + member if number else None,
                )
            )
    return made


@pytest.fixture(scope="module")
def index(spectra) -> Index:
    return Index.build(CountSketchModel(dim=32), spectra)


@pytest.fixture(scope="module")
def saved(index, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "library"
    index.save(folder)
    return folder


@pytest.fixture(scope="module")
def page(index, saved, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("map") / "map.html"
    spectral_map(saved, path, MapOptions("pca"), load_model=lambda: index.model)
    return path


def data_of(page: Path) -> dict:
    (packed,) = re.findall(r'<script id="data" type="application/octet-stream">([^<]*)</script>', page.read_text())
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def texts_of(data: dict, name: str) -> list[str | None]:
    (column,) = [column for column in data["columns"] if column["name"] == name]
    codes = np.frombuffer(base64.b64decode(column["codes"]), "<i4")
    return [None if code < 0 else column["texts"][code] for code in codes]


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    ours, theirs = project(vectors, "pca"), PCA(2).fit_transform(vectors)
    theirs *= np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.array_equal(ours, project(vectors, "pca"))


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (5, 1)])
def test_principal_components_of_almost_nothing(shape):
    found = project(np.ones(shape, np.float32), "pca")
    assert found.shape == (shape[0], 2) and np.abs(found).max(initial=0) < 1e-6


@pytest.mark.slow  # numba compiles UMAP
def test_umap_keeps_families_together_and_is_the_same_again(index):
    pytest.importorskip("umap")
    spectra = of_index(index)
    made = build_map(spectra, MapOptions(seed=3))
    again = build_map(spectra, MapOptions(seed=3))
    assert made.table.equals(again.table)
    place = np.column_stack([made.table["x"], made.table["y"]])
    family = np.array([text[:2] for text in made.table["spectrum_id"].to_pylist()])
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argsort(axis=1)[:, :5]
    assert (family[nearest] == family[:, None]).mean() > 0.9


def test_a_map_does_not_depend_on_the_order_of_its_spectra(spectra):
    model = CountSketchModel(dim=32)
    one, other = (
        build_map(of_index(Index.build(model, given)), MapOptions("pca", sample=20, seed=1))
        for given in (spectra, spectra[::-1])
    )
    assert one.table.equals(other.table) and len(one.table) == 20 and one.num_spectra == 48
    assert (
        one.table["spectrum_id"]
        != build_map(of_index(Index.build(model, spectra)), MapOptions("pca", sample=20, seed=2)).table["spectrum_id"]
    )


def test_the_page_holds_every_spectrum(page, index):
    data = data_of(page)
    made = build_map(of_index(index), MapOptions("pca"))
    for name in "xy":
        assert np.frombuffer(base64.b64decode(data[name]), "<f4").tolist() == made.table[name].to_pylist()
    assert texts_of(data, "spectrum_id") == made.table["spectrum_id"].to_pylist()
    assert texts_of(data, "name") == made.table["name"].to_pylist()
    assert set(texts_of(data, "chemical_superclass")) == {"Benzenoids", "Lipids", None}
    assert set(texts_of(data, "polarity")) == {"positive"} and set(texts_of(data, "charge")) == {"+1"}
    (mz,) = [column["numbers"] for column in data["columns"] if column["name"] == "precursor_mz"]
    assert np.frombuffer(base64.b64decode(mz), "<f8").tolist() == made.table["precursor_mz"].to_pylist()
    assert set(data["structures"]) == {CAFFEINE, "CCO"} and data["num_structures"] == 3
    assert data["structures"]["CCO"].startswith("<svg") and "class=" not in data["structures"]["CCO"]
    assert data["color_by"] == "chemical_superclass" and "license" not in data["colours"]


def test_the_page_is_one_file(page):
    text = page.read_text()
    own = text.replace(text[text.index("<script>") : text.rindex("<script>")], "")  # all but plotly.js
    assert not re.search(r"https?://", own)
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=(?!\"data:)", own)
    assert "default-src 'none'" in own and "%%" not in own
    assert len(text) < 6_000_000


def test_the_same_input_gives_the_same_page(page, saved, index, tmp_path):
    spectral_map(saved, tmp_path / "again.html", MapOptions("pca"), load_model=lambda: index.model)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_only_so_many_structures_are_drawn(index, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.spectral_map.STRUCTURES_AT_MOST", 1)
    shown = page_of(build_map(of_index(index), MapOptions("pca")), "t")
    assert list(shown.structures) == ["CCO"] and shown.num_structures == 3  # all have as many spectra: by the alphabet


def test_more_points_than_a_page_can_show(index, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.spectral_map.POINTS_AT_MOST", 40)
    with pytest.raises(InputError, match=r"48 spectra are too many for a map; .* at most 40: --sample"):
        build_map(of_index(index), MapOptions("pca"))
    assert len(build_map(of_index(index), MapOptions("pca", sample=40)).table) == 40


@pytest.mark.parametrize("suffix", [".tsv", ".parquet"])
def test_the_table(saved, index, tmp_path, suffix):
    out = tmp_path / f"map{suffix}"
    made = spectral_map(saved, tmp_path / "map.html", MapOptions("pca"), load_model=lambda: index.model, table_out=out)
    if suffix == ".parquet":
        assert pq.read_table(out).equals(made.table)
    else:
        with open(out, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, dialect="excel-tab"))
        assert [np.float32(row["x"]) for row in rows] == made.table["x"].to_pylist()
        assert [row["name"] or None for row in rows] == made.table["name"].to_pylist()


def test_wrong_words_are_named(saved, index, tmp_path):
    def run(out="m.html", table=None, **options):
        chosen = MapOptions(**{"method": "pca", **options})
        return spectral_map(saved, tmp_path / out, chosen, load_model=lambda: index.model, table_out=table)

    for options, message in (
        ({"out": "m.svg"}, r"name an \.html"),
        ({"table": tmp_path / "t.csv"}, r"is a \.parquet or a \.tsv"),
        ({"method": "tsne"}, "umap, pca, densmap"),
        ({"color_by": "colour"}, "cannot be coloured by 'colour'"),
        ({"color_by": "license"}, "no spectrum has a license; choose another .*adduct"),
        ({"sample": 0}, "sample is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"sample": 5, "method": "umap"}, "5 spectra are too few for umap"),
    ):
        with pytest.raises(InputError, match=message):
            run(**options)
    with pytest.raises(InputError, match="lies in the input"):
        spectral_map(saved, saved / "m.html", load_model=lambda: index.model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("package", "method"), [("plotly", "pca"), ("umap", "umap")])
def test_a_missing_package_is_named(saved, index, tmp_path, monkeypatch, package, method):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(InputError, match=re.escape("pip install 'ionbed[maps]'")):
        spectral_map(saved, tmp_path / "m.html", MapOptions(method), load_model=lambda: index.model)
    assert not list(tmp_path.iterdir())


def test_the_command_names_what_is_wrong(capsys, tmp_path):
    assert cli.main(["map", str(tmp_path / "nothing.mgf"), "--out", str(tmp_path / "m.html"), "--method", "pca"]) == 2
    assert "nothing.mgf" in capsys.readouterr().err
    assert cli.main(["map", "x", "--out", "m.html", "--method", "tsne"]) == 2


@pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed: apt-get install chromium")
def test_the_page_in_a_browser(page):
    sync_api = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        shown = browser.new_page(viewport={"width": 420, "height": 800})
        told, asked = [], []
        shown.on("console", lambda message: told.append(message.text))
        shown.on("pageerror", lambda error: told.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(page.as_uri())
        shown.wait_for_selector("html[data-ready]", timeout=60_000)
        assert shown.inner_text("#summary") == "48 spectra, PCA of their embeddings. 2 of 3 structures have a picture."
        assert shown.locator("#legend .text").all_inner_texts() == ["Benzenoids", "Lipids", "unknown"]
        assert "Coloured by chemical superclass" in shown.inner_text("#description")
        assert shown.evaluate("document.documentElement.scrollWidth") <= 420

        shown.fill("#search", "CAFFEINE")
        shown.press("#search", "Enter")
        shown.wait_for_selector("#details img")
        assert shown.inner_text("#found-title") == "12 spectra have “caffeine”"
        assert shown.locator("#matches button").count() == 12
        assert shown.inner_text("#details .title") == "caffeine </script><b>"
        assert shown.evaluate("document.querySelector('#details img').naturalWidth") > 0

        points = "document.getElementById('plot').data.reduce((sum, of) => sum + (of.customdata?.length ?? 0), 0)"
        assert shown.evaluate(points) == 48
        shown.click("#legend button >> nth=1")
        assert shown.evaluate(points) == 36
        assert shown.get_attribute("#legend button >> nth=1", "aria-pressed") == "false"
        shown.select_option("#color-by", "retention_time")
        assert shown.evaluate(points) == 48
        assert "unknown" in shown.inner_text("#legend")
        shown.fill("#search", "no such thing")
        shown.wait_for_function("document.getElementById('found-title').textContent.startsWith('No spectrum')")
        assert shown.locator(".modebar-btn").evaluate_all("found => found.map((of) => of.ariaLabel)") == [
            "Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out",
        ]  # fmt: skip
        assert told == []
        assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [page.as_uri()]
        browser.close()
