"""ionbed: learned search of tandem mass spectra, and an evaluation that cannot be flattered."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .embeddings.index import Index as Index
    from .embeddings.matchms_similarity import as_matchms_similarity as as_matchms_similarity
    from .embeddings.structure_index import StructureIndex as StructureIndex
    from .encoder.loading import load_model as load_model
    from .encoder.modeling_ionbed import IonbedModel as IonbedModel
    from .errors import InputError as InputError
    from .spectra.matchms_spectra import from_matchms as from_matchms
    from .spectra.matchms_spectra import to_matchms as to_matchms
    from .spectra.readers import read as read
    from .spectra.spectrum import Spectrum as Spectrum

_HOMES = {
    "Index": ".embeddings.index",
    "InputError": ".errors",
    "IonbedModel": ".encoder.modeling_ionbed",
    "Spectrum": ".spectra.spectrum",
    "StructureIndex": ".embeddings.structure_index",
    "as_matchms_similarity": ".embeddings.matchms_similarity",
    "from_matchms": ".spectra.matchms_spectra",
    "load_model": ".encoder.loading",
    "read": ".spectra.readers",
    "to_matchms": ".spectra.matchms_spectra",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import ionbed`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ionbed' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
