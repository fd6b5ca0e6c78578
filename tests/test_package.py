"""The wheel holds every package folder and every data file of the package, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import ionbed

ROOT = Path(__file__).parents[1]
NOT_SHIPPED = {"tests", "benchmarks", "docs", "slurm", "build", "dist", "runs"}
DATA_SUFFIXES = {".yaml", ".tsv", ".safetensors", ".html", ".css", ".js", ".svg"}


def shipped_folders() -> list[Path]:
    """All folders of the checkout that are part of the package, relative to it."""
    found = [Path()]
    for folder, inner, _ in os.walk(ROOT):
        inner[:] = sorted(n for n in inner if not n.startswith((".", "__")) and not n.endswith(".egg-info"))
        if Path(folder) == ROOT:
            # What runs leave behind (a demo's report, say) is no package; test_architecture.py names every room.
            inner[:] = [n for n in inner if n not in NOT_SHIPPED and (ROOT / n / "__init__.py").is_file()]
        found += [(Path(folder) / n).relative_to(ROOT) for n in inner]
    return found


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    program = f"""
import sys
from pathlib import Path
from setuptools import build_meta
print(build_meta.build_wheel({str(out)!r}))
"""
    source = tmp_path_factory.mktemp("source") / "checkout"
    source.mkdir()
    for path in ROOT.iterdir():  # a build writes into its source folder; links keep ours clean
        if path.name not in {"build", "dist"} and not path.name.endswith(".egg-info") and not path.name.startswith("."):
            (source / path.name).symlink_to(path)
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_and_data_file(wheel_names):
    expected = {
        f"ionbed/{(folder / path.name).as_posix()}"
        for folder in shipped_folders()
        for path in (ROOT / folder).iterdir()
        if path.is_file()
        and (path.suffix == ".py" or path.name == "py.typed" or (folder != Path() and path.suffix in DATA_SUFFIXES))
    }
    assert {"ionbed/py.typed", "ionbed/spectra/store.py", "ionbed/configs/loading.py"} <= expected
    assert sorted(expected - wheel_names) == []


def test_the_wheel_holds_nothing_else(wheel_names):
    roots = {name.split("/")[0] for name in wheel_names}
    assert roots == {"ionbed", f"ionbed-{ionbed.__version__}.dist-info"}
    inner = {name.split("/")[1] for name in wheel_names if name.startswith("ionbed/") and name.count("/") > 1}
    assert inner.isdisjoint(NOT_SHIPPED)
    assert inner <= {folder.parts[0] for folder in shipped_folders() if folder.parts}
    assert f"ionbed-{ionbed.__version__}.dist-info/licenses/LICENSE" in wheel_names


def test_every_package_folder_says_what_it_is_for():
    silent = []
    for folder in shipped_folders():
        if any((ROOT / folder).glob("*.py")):
            text = (ROOT / folder / "__init__.py").read_text(encoding="utf-8")
            if not text.startswith('"""'):
                silent.append(str(folder))
    assert not silent


def test_the_version_is_one():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {ionbed.__version__}\n" in citation
    assert re.search(r"^## \[?(Unreleased|\d)", changelog, re.MULTILINE)


def test_every_requirement_is_pinned_and_fits_its_range():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version and "+" not in version, line
            pins[canonicalize_name(name)] = version
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name != "ionbed":
            assert requirement.specifier.contains(pins[name]), f"{requirement} is pinned to {pins[name]}"


def test_the_lazy_public_names_exist():
    for name in ionbed.__all__:
        assert getattr(ionbed, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ionbed.nothing
    assert metadata.version("ionbed") == ionbed.__version__


def test_importing_the_package_and_the_command_line_is_light():
    heavy = ("torch", "rdkit", "matchms", "matplotlib", "pyarrow", "numpy")
    program = f"import sys, ionbed, ionbed.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
