"""Vectors of spectra: encode, index, search."""
