"""Molecules: identifiers, fingerprints, similarities, scaffolds."""

from __future__ import annotations

import numpy as np
import pytest

from ionbed.spectra.molecules import (
    balancing_anions,
    is_formula,
    is_inchikey,
    morgan_fingerprints,
    murcko_scaffold,
    parent_molecule,
    same_formula,
    standardise,
    tanimoto_matrix,
)

CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"


def test_two_spellings_of_a_molecule_are_one() -> None:
    first, second = standardise("CN1C=NC2=C1C(=O)N(C)C(=O)N2C"), standardise(CAFFEINE)
    assert first is not None
    assert first == second
    assert first.inchikey == "RYYVLZVUVIJVGH-UHFFFAOYSA-N"
    assert first.formula == "C8H10N4O2"
    assert first.exact_mass == pytest.approx(194.0803756, abs=1e-6)
    assert first.charge == 0


def test_inchi_is_read() -> None:
    ethanol = standardise("InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3")
    assert ethanol is not None
    assert ethanol == standardise("OCC")


def test_functional_groups_have_one_form_and_maps_go() -> None:
    assert standardise("CN(=O)=O") == standardise("C[N+](=O)[O-]") == standardise("[CH3:1][N+](=O)[O-]")


def test_charge_isotopes_and_stereochemistry_stay() -> None:
    choline = standardise("C[N+](C)(C)CCO")
    assert choline is not None
    assert (choline.charge, choline.formula) == (1, "C5H14NO+")
    assert choline.exact_mass == pytest.approx(104.107539, abs=1e-6)  # C5H14NO, no electron taken off
    heavy, light = standardise("[13CH3]O"), standardise("CO")
    assert heavy is not None
    assert light is not None
    assert heavy.exact_mass - light.exact_mass == pytest.approx(1.00335, abs=1e-4)
    left, right = standardise("C[C@H](N)C(=O)O"), standardise("C[C@@H](N)C(=O)O")
    assert left is not None
    assert right is not None
    assert left.inchikey[:14] == right.inchikey[:14]
    assert left.inchikey != right.inchikey


@pytest.mark.parametrize(
    "text", ["", "  ", "not a molecule", "C1CC", "InChI=1S/nonsense", "c1ccccc1*=[OH]", "C(C)(C)(C)(C)C"]
)
def test_unreadable_structures_are_none_and_silent(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert standardise(text) is None
    assert capfd.readouterr().err == ""


def test_formulas() -> None:
    assert same_formula("C20H19O10+", "[C20H19O10]+")
    assert same_formula("C6H12O6", "H12C6O6")
    assert same_formula("C5H14NO+2", "[C5H14NO]2+")
    assert same_formula("[13]C2C4H6", "C6H6")
    assert same_formula("C6D6", "C6H6")
    assert not same_formula("C6H12O6", "C6H12O5")
    assert not same_formula("C20H19O10+", "C20H19O1+")
    assert is_formula("C6H12O6")
    assert is_formula("[C5H14NO]+")
    assert not is_formula("N/A")
    assert not is_formula("")
    assert is_inchikey("RYYVLZVUVIJVGH-UHFFFAOYSA-N")
    assert is_inchikey("RYYVLZVUVIJVGH")  # the skeleton alone, as MassSpecGym gives it
    assert not is_inchikey("RYYVLZVUVIJVGH-UHFFFAOYSA")


def test_tanimoto_is_that_of_rdkit() -> None:
    from rdkit.Chem import MolFromSmiles
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
    from rdkit.DataStructs import TanimotoSimilarity

    smiles = [CAFFEINE, "CCO", "c1ccccc1O", "Cn1cnc2c1c(=O)[nH]c(=O)n2C"]
    bits = morgan_fingerprints(smiles)
    assert bits.shape == (4, 2048)
    assert bits.dtype == np.uint8
    generator = GetMorganGenerator(radius=2, fpSize=2048)
    reference = [generator.GetFingerprint(MolFromSmiles(s)) for s in smiles]
    matrix = tanimoto_matrix(bits, bits[:3])
    assert matrix.shape == (4, 3)
    assert matrix.dtype == np.float32
    for i in range(4):
        for j in range(3):
            assert matrix[i, j] == pytest.approx(TanimotoSimilarity(reference[i], reference[j]))


def test_empty_fingerprints_share_nothing() -> None:
    assert tanimoto_matrix(np.zeros((1, 8)), np.array([[1] * 8, [0] * 8])).tolist() == [[0.0, 0.0]]


def test_scaffold() -> None:
    assert murcko_scaffold("C[C@H](N)Cc1ccccc1") == "c1ccccc1"
    assert murcko_scaffold("CCO") == ""
    with pytest.raises(ValueError, match="xyz"):
        murcko_scaffold("xyz")
    with pytest.raises(ValueError, match="xyz"):
        morgan_fingerprints(["CCO", "xyz"])


@pytest.mark.parametrize(
    ("drawn", "parent"),
    [
        ("CCO", "CCO"),
        ("Cl.CN(C)C(=N)NC(N)=N", "CN(C)C(=N)NC(=N)N"),
        ("CC(=O)[O-].[Ag+]", "CC(=O)O"),  # silver is the heavier part
        ("[I-].C[N+](C)(C)C", "C[N+](C)(C)C"),  # as is the iodide; this charge is no proton's
        ("CC(=O)[O-]", "CC(=O)O"),
        ("C[NH3+]", "CN"),
        ("C[N+](C)(C)CCO", "C[N+](C)(C)CCO"),
        ("C[N+](C)(C)CC([O-])=O", "C[N+](C)(C)CC(=O)[O-]"),  # betaine has no charge in all
        ("C[N+](C)(C)CC(O)=O", "C[N+](C)(C)CC(=O)[O-]"),  # nor where it is drawn as its cation
        ("Cl.C[N+](C)(C)CC(O)=O", "C[N+](C)(C)CC(=O)[O-]"),
        ("[Cl-].C[N+](C)(C)CC(O)=O", "C[N+](C)(C)CC(=O)[O-]"),
        ("C[N+](C)(C)CC(C(O)=O)OP(O)(O)=O", "C[N+](C)(C)CC(C(=O)O)OP(=O)([O-])O"),  # the stronger acid
        ("C[N+](C)(C)CC(C(O)=O)C[N+](C)(C)C", "C[N+](C)(C)CC(C(=O)[O-])C[N+](C)(C)C"),  # one of two charges
        ("OC(=O)c1ccccc1-c1c2ccc(cc2[o+]c2ccccc12)O", "O=C([O-])c1ccccc1-c1c2ccc(O)cc2[o+]c2ccccc12"),
        ("[NH3+]CC(=O)[O-]", "NCC(=O)O"),  # an amino acid needs no charges
        ("[O-][N+](=O)c1ccccc1", "O=[N+]([O-])c1ccccc1"),
        ("O.O.CC(N)C(=O)O", "CC(N)C(=O)O"),
    ],
)
def test_the_molecule_of_which_there_are_ions(drawn: str, parent: str) -> None:
    assert parent_molecule(drawn) == standardise(parent)


@pytest.mark.parametrize(
    ("smiles", "anions"),
    [
        ("CCO", 0),
        ("C[N+](C)(C)CC(=O)[O-]", 1),
        ("C[N+](C)(C)CC(CC(=O)[O-])C[N+](C)(C)CC(=O)[O-]", 2),
        ("O=[N+]([O-])c1ccccc1", 0),
        ("C[N+](C)(C)[O-]", 0),
        ("C[N+]#[C-]", 0),
    ],
)
def test_acids_that_balance_a_charge_are_counted(smiles: str, anions: int) -> None:
    assert balancing_anions(smiles) == anions


def test_an_unreadable_structure_has_no_parent() -> None:
    assert parent_molecule("C1CC") is None
    assert parent_molecule("") is None
