"""How well the probabilities of hits hold on molecules that the model was not trained on.

    python -m benchmarks.hit_probability INDEX split.json

They are fitted as a build fits them, to library spectra of molecules of the fold 'train', and are then asked about
spectra of the folds 'validation' and 'test'. For half of the queries the molecule is left out of the library, for the
others the query itself, and all that its own laboratory measured of the molecule ('other' laboratories) or not ('any').
"""

from __future__ import annotations

import argparse

import numpy as np

from ionbed.embeddings import calibration_fit, calibration_queries
from ionbed.embeddings.calibration import way
from ionbed.embeddings.index import Index
from ionbed.spectra.split import Split


def main() -> None:
    """Print, for each way of searching, how often hits were right by the probability that they had."""
    parser = argparse.ArgumentParser(description="How well the probabilities of hits hold on held-out molecules.")
    parser.add_argument("index")
    parser.add_argument("split", help="that the model of the index was trained with")
    parser.add_argument("--draws", type=int, default=3, help="of one query from each held-out molecule")
    options = parser.parse_args()
    index, folds = Index.open(options.index), Split.load(options.split).folds
    trained = {key for key, fold in folds.items() if fold == "train"}
    held_out = {key for key, fold in folds.items() if fold in ("validation", "test")}
    fitted_to = calibration_queries.library_queries(index, np.random.default_rng(0), molecules=trained)
    if fitted_to is None:
        raise SystemExit(f"{options.index}: has too few molecules of the fold 'train'")
    for score, is_window in calibration_fit.ways_of(index):
        curve = calibration_fit.fit_curve(index, fitted_to, score, is_window, np.random.default_rng(0))
        print(f"\n{way(score, is_window)}: fitted to {curve.record['queries']} queries of trained molecules")
        for laboratories in ("other", "any"):
            said, is_right, is_best = [], [], []
            for draw in range(options.draws):
                asked = calibration_queries.library_queries(
                    index, np.random.default_rng(draw + 1), molecules=held_out, laboratories=(laboratories,)
                )
                if asked is None:
                    continue
                found, right = calibration_fit.found_for(index, asked, score, is_window)
                said.append(curve(found.terms))
                is_right.append(right)
                is_best.append(found.rank == 0)
            if not said:
                print(f"  hits of {laboratories} laboratories: too few molecules")
                continue
            best = np.concatenate(is_best)
            _print(laboratories, np.concatenate(said)[best], np.concatenate(is_right)[best])


def _print(laboratories: str, said: np.ndarray, is_right: np.ndarray) -> None:
    quality = calibration_fit.quality(said, is_right)
    print(
        f"  first hits, molecule's spectra of {laboratories} laboratories: {quality['pairs']} queries, "
        f"{quality['base_rate']:.2f} right; Brier score {quality['brier']:.3f} (base rate alone "
        f"{quality['brier_of_base_rate']:.3f}), calibration error {quality['ece']:.3f}"
    )
    for mean, share, count in quality["reliability"]:
        print(f"    said {mean:.2f}  right {share:.2f}  of {count}")


if __name__ == "__main__":
    main()
