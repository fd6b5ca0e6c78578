"""Segments of an index of spectra: rows on disk that are mapped into memory, checked, merged and committed."""
