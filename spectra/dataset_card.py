"""The dataset card of a store, ``README.md``: it tells Hugging Face datasets which files of the folder are the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ..artifacts import atomic_file
from ..progress import counted
from .store import SCHEMA

CARD_FILE: Final = "README.md"
ROWS: Final = "spectra-*.parquet"

_CARD = """\
---
configs:
- config_name: default
  data_files: {rows}
tags:
- mass-spectrometry
---

# Tandem mass spectra, prepared by ionbed

{kept}, of {read} read. What was dropped is in `dropped.tsv`, with the reasons; what became of every
file in `files.tsv` and `report.html`; what made the folder, and the checksums, in `manifest.json`.

```python
from datasets import load_dataset

spectra = load_dataset("parquet", data_files="THIS FOLDER/{rows}", split="train")
```

Columns: {columns}. m/z is ascending, in Da per charge; intensity is relative to the base peak, which is 1; energies are
in eV, times in seconds; what is not known is null. The column `license` says under which terms each spectrum was
published: it is not one for all.
"""


def write_dataset_card(folder: Path, counts: dict[str, Any]) -> None:
    """Write `CARD_FILE` into the folder of a store.

    Without it ``datasets.load_dataset(folder)`` takes the kind of file that there is most of: the tables beside a
    single shard.

    Parameters
    ----------
    folder : path
    counts : dict
        ``read`` and ``kept`` of the manifest.
    """
    columns = ", ".join(f"`{name}`" for name in SCHEMA.names)
    with atomic_file(Path(folder) / CARD_FILE) as partial:
        partial.write_text(
            _CARD.format(
                rows=ROWS,
                read=counted(counts["read"], "records"),
                kept=counted(counts["kept"], "spectra"),
                columns=columns,
            ),
            encoding="utf-8",
        )
