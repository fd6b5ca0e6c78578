"""The encoder's configuration: its sizes, and all preprocessing that its weights were trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

CONDITIONING = ("polarity", "charge", "collision_energy", "adduct", "instrument")
PRECURSOR_MODES = ("full", "relative", "hidden")


class IonbedConfig(PretrainedConfig):
    """Configuration of `IonbedModel`.

    Parameters
    ----------
    hidden_size, num_layers, num_heads, mlp_ratio : int
        Transformer sizes. ``hidden_size`` must be a multiple of ``2 * num_heads``.
    embedding_dim : int or None
        Length of the embedding after a learned projection; None for the pooled hidden state without one.
    dropout : float
        After attention and feed-forward blocks, in training.
    max_peaks : int
        Peaks kept per spectrum, the most intense ones.
    min_intensity : float
        Peaks below this share of the base peak are not read.
    num_mz_wavelengths : int
        Wavelengths of the sinusoidal m/z features.
    mz_wavelengths : (float, float)
        Shortest and longest wavelength of the m/z features, Da, in geometric progression.
    rotary_wavelengths : (float, float)
        The same for the rotation of queries and keys by m/z.
    rotary_fraction : float
        Share of each head's dimensions that is rotated; the others compare content alone.
    pairwise_bias : int
        Hidden width of a small network that gives each head a bias from the m/z difference of two peaks, at the
        wavelengths of the rotation; 0 for no bias.
    precursor : {'full', 'relative', 'hidden'}
        What the precursor token tells. 'full': its m/z as features and as rotary position. 'relative': only the
        position, so that attention sees neutral losses and the token does not name the mass. 'hidden': neither.
    conditioning : sequence of str
        Metadata that the precursor token carries, of 'polarity', 'charge', 'collision_energy', 'adduct', 'instrument'.
    adducts, instruments : sequence of str
        Vocabularies of the last two; others count as unknown.
    molecule_tower : int
        Width of the tower that embeds structures beside spectra (`ionbed.encoder.molecule_tower`); 0 for none.
    molecule_features : int
        Version of the features that the tower reads (`ionbed.spectra.molecule_features.FEATURES_VERSION`); 1 for a
        model that does not say.
    training : sequence of dict
        What the weights were trained on, one entry per stage: command, split (its hash, or None), folds, numbers of
        spectra and molecules, store (hashes of its shards). A record, not an option: it does not enter the model's
        hash, and an evaluation reads it to see whether a test is fair.
    fusion : dict or None
        How the cosine of two embeddings is fused with look-ups of the peaks (`ionbed.embeddings.fusion`). Not in the
        model's hash either: no embedding depends on it, so an index need not be built again where it is fitted anew.

    Raises
    ------
    ValueError
        Sizes do not fit together or a value is out of its range.
    """

    model_type = "ionbed"

    def __init__(
        self,
        hidden_size: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        mlp_ratio: int = 4,
        embedding_dim: int | None = None,
        dropout: float = 0.0,
        max_peaks: int = 64,
        min_intensity: float = 0.001,
        num_mz_wavelengths: int = 128,
        mz_wavelengths: tuple[float, float] = (1e-3, 1e3),
        rotary_wavelengths: tuple[float, float] = (1e-2, 1e3),
        rotary_fraction: float = 0.5,
        pairwise_bias: int = 0,
        precursor: str = "full",
        conditioning: tuple[str, ...] = ("polarity", "charge", "collision_energy"),
        adducts: tuple[str, ...] = (),
        instruments: tuple[str, ...] = (),
        molecule_tower: int = 0,
        molecule_features: int = 1,
        initializer_range: float = 0.02,
        training: Sequence[Mapping[str, Any]] = (),
        fusion: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads, "mlp_ratio": mlp_ratio,
                 "num_mz_wavelengths": num_mz_wavelengths}  # fmt: skip
        for label, size in {**sizes, "embedding_dim": 1 if embedding_dim is None else embedding_dim}.items():
            if size < 1:
                raise ValueError(f"{label} is {size}; it must be at least 1")
        for label, share in {"dropout": dropout, "min_intensity": min_intensity}.items():
            if not 0 <= share < 1:
                raise ValueError(f"{label} is {share}; it must lie from 0 to below 1")
        if hidden_size % (2 * num_heads):
            raise ValueError(f"hidden_size ({hidden_size}) must be a multiple of 2 * num_heads ({2 * num_heads})")
        if precursor not in PRECURSOR_MODES:
            raise ValueError(f"precursor is {precursor!r}; it must be one of {', '.join(PRECURSOR_MODES)}")
        unknown = set(conditioning) - set(CONDITIONING)
        if unknown:
            raise ValueError(f"conditioning has {', '.join(sorted(unknown))}; known are {', '.join(CONDITIONING)}")
        for label, (low, high) in {"mz_wavelengths": mz_wavelengths, "rotary_wavelengths": rotary_wavelengths}.items():
            if not 0 < low < high:
                raise ValueError(f"{label} must be two positive lengths in Da, the shorter first, not {low}, {high}")
        if not 0 <= rotary_fraction <= 1:
            raise ValueError(f"rotary_fraction is {rotary_fraction}; it must lie between 0 and 1")
        if pairwise_bias < 0:
            raise ValueError(f"pairwise_bias is {pairwise_bias}; it must be 0 (no bias) or a width above")
        if molecule_tower < 0:
            raise ValueError(f"molecule_tower is {molecule_tower}; it must be 0 (no tower) or a width above")
        if max_peaks < 1:
            raise ValueError(f"max_peaks is {max_peaks}; at least one peak is needed")
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.embedding_dim = embedding_dim
        self.dropout = dropout
        self.max_peaks = max_peaks
        self.min_intensity = min_intensity
        self.num_mz_wavelengths = num_mz_wavelengths
        self.mz_wavelengths = (float(mz_wavelengths[0]), float(mz_wavelengths[1]))
        self.rotary_wavelengths = (float(rotary_wavelengths[0]), float(rotary_wavelengths[1]))
        self.rotary_fraction = rotary_fraction
        self.pairwise_bias = pairwise_bias
        self.precursor = precursor
        self.conditioning = tuple(conditioning)
        self.adducts = tuple(adducts)
        self.instruments = tuple(instruments)
        self.molecule_tower = molecule_tower
        self.molecule_features = molecule_features
        self.initializer_range = initializer_range
        self.training = [dict(stage) for stage in training]
        self.fusion = None if fusion is None else dict(fusion)
        super().__init__(**kwargs)

    @property
    def output_dim(self) -> int:
        """Length of the vectors that `IonbedModel.embed` returns."""
        return self.embedding_dim or self.hidden_size

    @property
    def num_rotary(self) -> int:
        """Number of rotated pairs of dimensions in each head."""
        return int(self.hidden_size // self.num_heads // 2 * self.rotary_fraction)
