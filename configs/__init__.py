"""Configurations that ship with the package, one YAML per stage and size, and their loading."""
