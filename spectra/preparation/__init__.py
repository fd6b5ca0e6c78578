"""The stages of ``ionbed prepare``: inputs are cut into units, units become parts, parts become the store."""
