"""What the edges of a network join: one molecule, like molecules or unlike ones, by the least score of an edge.

    python benchmarks/network_edges.py INDEX                 # of spectra with known structures
    python benchmarks/network_edges.py STORE --model M

Two networks for each score: of all spectra, and of one spectrum (that with the most peaks) for each molecule and
polarity, which is nearer to the features of a run. 'alike' is a Tanimoto similarity of 0.4 or more (Morgan
fingerprints, radius 2, 2,048 bits). Take molecules that the model was not trained on. Without an input the store that
the variable IONBED_STORE names is taken, if any.
"""

from __future__ import annotations

import argparse
import dataclasses
import os

import numpy as np
import pyarrow as pa

from ionbed.embeddings.embedded_input import EmbeddedSpectra, embedded_spectra
from ionbed.embeddings.network import NetworkOptions, build_network
from ionbed.encoder.loading import load_model
from ionbed.spectra.molecules import morgan_fingerprints

ALIKE = 0.4
RANDOM_PAIRS = 20_000
SCORES = {"cosine": (0.7, 0.75, 0.8, 0.85, 0.9, 0.95), "fused": (0.2, 0.3, 0.4, 0.5)}


class Structures:
    """The molecules of spectra, compared pair by pair."""

    def __init__(self, spectra: EmbeddedSpectra) -> None:
        keys = [key[:14] for key in spectra.metadata["inchikey"].to_pylist()]
        smiles = dict(zip(keys, spectra.metadata["smiles"].to_pylist(), strict=True))
        number = {key: place for place, key in enumerate(smiles)}
        self.molecule = np.array([number[key] for key in keys])
        self._bits = np.asarray(morgan_fingerprints(list(smiles.values())), np.float32)

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the Tanimoto similarity of pairs of spectra, of shape (n_pairs,)."""
        a, b = self._bits[self.molecule[first]], self._bits[self.molecule[second]]
        common = (a * b).sum(axis=1)
        return common / (a.sum(axis=1) + b.sum(axis=1) - common)


def taken(spectra: EmbeddedSpectra, rows: np.ndarray) -> EmbeddedSpectra:
    columns = spectra.columns().take(rows)
    return dataclasses.replace(
        spectra,
        vectors=spectra.vectors[rows],
        polarity=spectra.polarity[rows],
        metadata=spectra.metadata.take(pa.array(rows)),
        columns=lambda: columns,
    )


def one_each(spectra: EmbeddedSpectra) -> EmbeddedSpectra:
    """Return the spectrum with the most peaks of each molecule and polarity."""
    num_peaks, molecule = spectra.columns().num_peaks, Structures(spectra).molecule
    order = np.lexsort((np.arange(len(spectra)), -num_peaks, spectra.polarity, molecule))
    _, first = np.unique(np.stack([molecule, spectra.polarity])[:, order], axis=1, return_index=True)
    return taken(spectra, np.sort(order[first]))


def tell(name: str, spectra: EmbeddedSpectra, cap: int) -> None:
    structures = Structures(spectra)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, len(spectra), (2, RANDOM_PAIRS))
    unlike = structures.molecule[a] != structures.molecule[b]
    random = structures.similarity(a[unlike], b[unlike])
    print(f"\n{name}: {len(spectra):,} spectra of {structures.molecule.max() + 1:,} molecules; pairs of two molecules "
          f"drawn at random: Tanimoto {random.mean():.2f}, {(random >= ALIKE).mean():.1%} alike\n")  # fmt: skip
    print(
        "| least score | edges | one molecule | of the others alike | mean Tanimoto | components | largest | single |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    carries_fused = getattr(getattr(spectra.model, "config", None), "fusion", None) is not None
    for score, least_scores in SCORES.items():
        if score == "fused" and not carries_fused:
            continue
        for least in least_scores:
            made = build_network(spectra, NetworkOptions(score=score, min_score=least, max_component=cap))
            a, b = (made.edges[end].to_numpy() for end in ("source", "target"))
            is_same = structures.molecule[a] == structures.molecule[b]
            found = structures.similarity(a[~is_same], b[~is_same])
            counts = made.counts
            print(f"| {score} {least:g} | {len(a):,} | {is_same.mean():.0%} | {(found >= ALIKE).mean():.0%} of "
                  f"{len(found):,} | {found.mean():.2f} | {counts['components']:,} | {counts['largest']:,} | "
                  f"{counts['singletons']:,} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    store = os.environ.get("IONBED_STORE")
    parser.add_argument("input", nargs="?", default=store, help="an index, or what 'ionbed index build' takes")
    parser.add_argument("--model", help="that embeds it")
    parser.add_argument("--cap", type=int, default=100, help="of components (default: %(default)s)")
    options = parser.parse_args()
    if options.input is None:
        print("needs spectra with structures: name an index or a store, or set IONBED_STORE")
        return
    spectra = embedded_spectra(options.input, (lambda: load_model(options.model)) if options.model else None)
    table = spectra.metadata
    known = [bool(a and b) for a, b in zip(table["smiles"].to_pylist(), table["inchikey"].to_pylist(), strict=True)]
    spectra = taken(spectra, np.flatnonzero(known))
    tell("One spectrum for each molecule and polarity", one_each(spectra), options.cap)
    tell("All spectra", spectra, options.cap)


if __name__ == "__main__":
    main()
