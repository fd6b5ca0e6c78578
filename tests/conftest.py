"""What holds for all tests: no network, one thread, the same examples each time; and a small store of several rooms."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # models are tiny, and other processes test beside this one
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ.pop("COLUMNS", None)  # tables are as wide as where there is no terminal; readline hands on the width of one
# gRPC, which pymilvus brings, starts threads in forked children; they take the signals that these have blocked.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from ionbed.spectra.spectrum import Spectrum

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells have it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or else no command that a test starts could be told

settings.register_profile("ionbed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ionbed")
# Hypothesis draws constants of our modules, too, of those that are loaded by then: no two runs would be alike.
providers._get_local_constants = providers.Constants


SMILES = (
    "CC(=O)Nc1ccc(O)cc1", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "CC(=O)Oc1ccccc1C(=O)O",
    "NC(Cc1ccccc1)C(=O)O", "NC(Cc1ccc(O)cc1)C(=O)O", "NC(Cc1c[nH]c2ccccc12)C(=O)O", "NCCc1ccc(O)c(O)c1",
    "NCCc1c[nH]c2ccc(O)cc12", "CNCC(O)c1ccc(O)c(O)c1", "OC(=O)c1cccnc1", "NC(=O)c1cccnc1", "OC(=O)c1ccncc1",
    "OC(=O)c1ccccn1", "CC(N)Cc1ccccc1", "CNC(C)Cc1ccccc1", "CC(C)NCC(O)COc1cccc2ccccc12", "NCCS(=O)(=O)O",
    "OC(=O)CCC(=O)O", "CSCCC(N)C(=O)O", "CC(C)CC(N)C(=O)O", "CCC(C)C(N)C(=O)O", "NCCCCC(N)C(=O)O",
    "NC(CCC(=O)O)C(=O)O",
)  # fmt: skip
"""Two dozen small molecules, isomers among them (leucine and isoleucine; the three pyridinecarboxylic acids)."""


def make_spectra(per_molecule: int = 6, seed: int = 0) -> list[Spectrum]:
    """Return made-up spectra of `SMILES`: every molecule has peaks of its own, with noise, at several energies."""
    from ionbed.spectra.molecules import standardise

    rng = np.random.default_rng(seed)
    spectra = []
    for number, smiles in enumerate(SMILES):
        molecule = standardise(smiles)
        assert molecule is not None
        own = np.random.default_rng(number).uniform(40, molecule.exact_mass, 12)
        for copy in range(per_molecule):
            shown = rng.random(len(own)) < 0.8
            mz = np.sort(own[shown] * (1 + rng.normal(0, 2e-6, shown.sum()))).astype(np.float32)
            mz = mz if len(mz) else np.array([50.0], np.float32)
            intensity = rng.uniform(0.01, 1, len(mz)).astype(np.float32)
            spectra.append(
                Spectrum(
                    spectrum_id=f"S{number:02d}-{copy}",
                    precursor_mz=molecule.exact_mass + 1.00728,
                    mz=mz,
                    intensity=intensity / intensity.max(),
                    polarity=1,
                    charge=1,
                    adduct="[M+H]+",
                    collision_energy=(10.0, 20.0, 40.0)[copy % 3],
                    smiles=molecule.smiles,
                    inchikey=molecule.inchikey,
                    formula=molecule.formula,
                    name=f"molecule {number}",
                    laboratory=("A", "B")[copy % 2],
                )
            )
    return spectra


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs Python with ``words`` in several processes, one thread each, and returns what they say."""

    def run(*words: object, processes: int = 2, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [*launcher, *map(str, words)], env=environment, capture_output=True, text=True, timeout=timeout
        )

    return run


@pytest.fixture
def killed_after_checkpoint() -> Callable[..., AbstractContextManager[None]]:
    """A context in which a training is interrupted once it has written so many checkpoints, and must be."""

    @contextmanager
    def killed(checkpoints: int = 1) -> Iterator[None]:
        from ionbed.pretrain import loop

        save, saved = loop.save_checkpoint, []

        def save_then_die(*arguments: Any, **options: Any) -> None:
            saved.append(save(*arguments, **options))
            if len(saved) == checkpoints:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(loop, "save_checkpoint", save_then_die)
            yield

    return killed


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 144 spectra of 24 molecules in two shards, as 'ionbed prepare' would write it."""
    from ionbed.artifacts import sha256_of_file, write_manifest
    from ionbed.spectra.store import SHARD_NAME, table_from_spectra, write_shard

    folder = tmp_path_factory.mktemp("data") / "store"
    folder.mkdir()
    spectra, shards = make_spectra(), []
    for number, part in enumerate((spectra[:80], spectra[80:])):
        name = SHARD_NAME.format(number)
        write_shard(table_from_spectra(part), folder / name)
        shards.append({"file": name, "spectra": len(part), "sha256": sha256_of_file(folder / name)})
    counts = {"read": len(spectra), "kept": len(spectra), "dropped": {}, "repaired": {}}
    write_manifest(folder, {"command": "prepare", "inputs": [], "options": {}, "counts": counts, "shards": shards})
    return folder


@pytest.fixture(scope="session")
def split(store: Path) -> Path:
    """A split of that store with molecules in every fold."""
    from ionbed.finetune.splits import SplitOptions, split_store

    path = store.parent / "split.json"
    split_store(store, path, SplitOptions(seed=1, test=0.2, validation=0.15))
    return path
