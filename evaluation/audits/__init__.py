"""Audits that look for leaks: in the spectra, in the candidates, in the scores and in what was trained on."""
