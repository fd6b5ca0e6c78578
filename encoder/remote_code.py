"""What a model folder holds beside the weights so that `transformers` loads it where nobody has imported ionbed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MODULE: Final = "modeling_ionbed"
AUTO_MAP: Final = {"AutoConfig": f"{MODULE}.IonbedConfig", "AutoModel": f"{MODULE}.IonbedModel"}
"""In ``config.json``: where ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` finds the classes."""

SOURCE: Final = '''\
"""Lets transformers load this model with trust_remote_code=True; the code is that of the installed package ionbed."""

from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel

__all__ = ["IonbedConfig", "IonbedModel"]
'''


def write_remote_code(folder: str | os.PathLike[str]) -> None:
    """Write the module that `AUTO_MAP` names: it imports the installed package, and holds no other code."""
    (Path(folder) / f"{MODULE}.py").write_text(SOURCE, encoding="utf-8")
