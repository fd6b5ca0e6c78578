"""What the commands share in how they look: the examples under their help, and the width of their tables."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def examples(*lines: str) -> str:
    """Return lines as they stand, under a heading; a bracket in them is no markup."""
    return "\b\n[bold]Examples[/bold]\n" + "\n".join(f"  {line}" for line in lines).replace("[", "\\[")


def console() -> Console:
    """Return standard output for tables; 120 columns where it is no terminal and nobody says otherwise."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
