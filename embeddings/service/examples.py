"""An example to try the search with: a spectrum of the index itself, or one predicted of a structure in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...spectra.simulate import simulate_spectra
from ...spectra.spectrum import Spectrum
from ..structure_index import StructureIndex
from .failures import RequestError
from .index_facts import some_rows
from .models import ExampleModel, finite
from .searching import peak_pairs

if TYPE_CHECKING:
    from .index_state import IndexState

_LOOKED_AT = 64
_FEW_PEAKS, _MANY_PEAKS = 8, 60


def example_query(state: IndexState) -> ExampleModel:
    """Return the spectrum of the index, among some over all of it, that makes the best picture: named, neither bare
    nor crowded. Of an index of structures the spectrum that is predicted of one of them.

    Raises
    ------
    RequestError
        None of the structures can be predicted.
    """  # noqa: D205
    rows = some_rows(state.index, _LOOKED_AT)
    if isinstance(state.index, StructureIndex):
        table = state.index.metadata.take(rows)
        named = zip(table["name"].to_pylist(), table["smiles"].to_pylist(), strict=True)
        spectra = simulate_spectra([(name or smiles, smiles) for name, smiles in named], energies=(20.0,))
        found = next(iter(spectra), None)
        if found is None:
            raise RequestError(404, "this index has no structure whose spectrum can be predicted")
        return _model(found)
    return _model(max(state.index.spectra(rows), key=_fitness))


def _fitness(spectrum: Spectrum) -> tuple[bool, bool, bool, int]:
    is_fit = _FEW_PEAKS <= len(spectrum) <= _MANY_PEAKS
    return is_fit, not spectrum.predicted, bool(spectrum.name and spectrum.smiles), -abs(len(spectrum) - 25)


def _model(spectrum: Spectrum) -> ExampleModel:
    return ExampleModel(
        precursor_mz=spectrum.precursor_mz,
        charge=spectrum.charge,
        polarity=spectrum.polarity,
        adduct=spectrum.adduct,
        collision_energy=finite(spectrum.collision_energy),
        name=spectrum.name[:200] if spectrum.name else None,
        peaks=peak_pairs(spectrum.mz, spectrum.intensity),
    )
