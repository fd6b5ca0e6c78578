"""Structures as pictures: SVG by RDKit, of any SMILES that a client sends."""

from __future__ import annotations

from typing import Any

from ...errors import InputError

LARGEST_MOLECULE = 250
"""Heavy atoms: laying out larger ones takes seconds, and nobody could read them."""
WIDTH, HEIGHT = 320, 220


def svg_of(smiles: str) -> str:
    """Return the drawing of a structure.

    Raises
    ------
    InputError
        RDKit cannot read it, or it is too large.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    parameters: Any = Chem.SmilesParserParams()  # RDKit's stubs give its options the type of the whole
    parameters.allowCXSMILES = False  # its labels would be drawn: text of a client within our SVG
    parameters.parseName = False
    try:
        with rdBase.BlockLogs():
            mol = Chem.MolFromSmiles(smiles, parameters)
            if mol is None or not mol.GetNumAtoms():
                raise ValueError
            if mol.GetNumAtoms() > LARGEST_MOLECULE:
                raise InputError(f"smiles: has more than the {LARGEST_MOLECULE} atoms that are drawn")
            drawer = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
            options: Any = drawer.drawOptions()
            options.clearBackground = False
            rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol)
            drawer.FinishDrawing()
            return str(drawer.GetDrawingText()).replace("encoding='iso-8859-1'", "encoding='utf-8'", 1)
    except (ValueError, RuntimeError, UnicodeError):
        raise InputError("smiles: RDKit cannot read this structure") from None
