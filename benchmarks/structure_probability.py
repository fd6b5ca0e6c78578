"""How well the probabilities of structures hold on molecules that they were not fitted to.

    ionbed index calibrate STRUCTURES validation.mgf --split split.json
    python -m benchmarks.structure_probability STRUCTURES test.mgf

The queries' molecules are to be new to the model and to the calibration. 'half': every query whose molecule the
database has is asked as it is and without the molecule, and both kinds count for as much. 'as it is': the database as
it is, which has fewer of the molecules or more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ionbed.embeddings import calibration_fit, structure_calibration_fit
from ionbed.embeddings.calibration import shared_out
from ionbed.embeddings.queries import queries_of
from ionbed.embeddings.search_options import scores_of
from ionbed.embeddings.structure_calibration import structure_curve
from ionbed.embeddings.structure_index import StructureIndex


def main() -> None:
    """Print, for each way of searching, how often first hits were right by the probability that they had."""
    parser = argparse.ArgumentParser(description="How well the probabilities of structures hold on held-out molecules.")
    parser.add_argument("index", help="of structures, calibrated by other molecules")
    parser.add_argument("queries", type=Path, help="spectra of known molecules")
    options = parser.parse_args()
    index = StructureIndex.open(options.index)
    spectra = [query.spectrum for query in queries_of(options.queries)[0] if query.spectrum is not None]
    asked = structure_calibration_fit.asked_of(index, [spectrum for spectrum in spectra if spectrum.inchikey])
    is_half = np.arange(len(asked.molecule)) >= asked.is_present.sum()  # the second asking: the molecule is left out
    has_molecule = np.isin(asked.molecule, asked.molecule[asked.is_present])
    is_asked = asked.is_present | (is_half & ~has_molecule)
    held = len(set(asked.molecule[asked.is_present]))
    print(f"{len(spectra)} spectra, {len(set(asked.molecule))} molecules; the index has {held}")
    for score in scores_of(index):
        for ppm, formula in structure_calibration_fit.WAYS:
            curve = structure_curve(index.manifest, score, ppm, formula, index.fusion if score == "fused" else None)
            if curve is None:
                print(f"\n{score}: not calibrated")
                continue
            found, is_right = structure_calibration_fit.found_structures(index, asked, score, ppm, formula)
            said = shared_out(curve, found)[found.query, found.rank]
            print(f"\n{score} {'by formula' if formula else 'within a window'}")
            for name, weight in (("half", asked.weight), ("as it is", is_asked.astype(float))):
                kept = (found.rank == 0) & (weight[found.query] > 0)
                _print(name, said[kept], is_right[kept], weight[found.query][kept])


def _print(name: str, said: np.ndarray, is_right: np.ndarray, weight: np.ndarray) -> None:
    quality = calibration_fit.quality(said, is_right, weight)
    brier, of_base_rate = quality["brier"], quality["brier_of_base_rate"]
    print(
        f"  {name}: {quality['pairs']} first hits, {quality['base_rate']:.2f} right; Brier score {brier:.3f} "
        f"(base rate alone {of_base_rate:.3f}), calibration error {quality['ece']:.3f}"
    )
    for mean, share, count in quality["reliability"]:
        print(f"    said {mean:.2f}  right {share:.2f}  of {count}")


if __name__ == "__main__":
    main()
