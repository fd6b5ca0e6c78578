"""Public data sets by name: a registry of them, and downloads that resume, are checked and stay polite."""
