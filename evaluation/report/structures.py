"""Molecules drawn in two dimensions, as SVG elements."""

from __future__ import annotations

from typing import Any

WIDTH, HEIGHT = 220, 190


def structure_svg(smiles: str, legend: str) -> str | None:
    """Return a drawing of a molecule with ``legend`` below it, or None where RDKit cannot read it."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem.Draw import rdMolDraw2D

    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    molecule: Any = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return None
    drawer: Any = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    options = drawer.drawOptions()
    options.clearBackground = False
    options.legendFontSize = 12
    options.fixedBondLength = 24.0
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule, legend=legend)
    drawer.FinishDrawing()
    text: str = drawer.GetDrawingText()
    return text[text.index("<svg") :].strip()
