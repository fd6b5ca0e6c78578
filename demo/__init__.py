"""``ionbed demo``: the pipeline on a small library of predicted spectra."""
