"""Attention over the tokens of each spectrum: of padded batches, and of tokens packed one spectrum after the other.

Shape suffixes: T real tokens of a batch, packed; the others as in `ionbed.encoder.modeling_ionbed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from .batching import even_lengths

PADDING_WORTH_PACKING = 0.15
"""Share of padding from which packed tokens are faster where attention itself still needs them padded.

Seen on a CPU (`small`): training gains from 0.06 on, embedding from about 0.15.
"""
MOST_BANDS = 8
TOKENS_OF_A_BAND = 256
"""Spectra of about one length, padded to the longest of them, are attended to together: a batch has so many bands at
most, and fewer where they would be smaller."""
LARGEST_FUSED_HEAD = 256


class Rotation(NamedTuple):
    """The rotation of queries and keys: dimension i becomes ``kept * x[i] + ahead * x[i + R] + behind * x[i - R]``.

    Of each head the first 2R dimensions are rotated, dimension i with i + R, and the others stay. As sums of whole
    shifted vectors this runs along contiguous memory; by pairs it would run along the R of one head, several times
    slower.

    Attributes
    ----------
    shift : int
        R.
    kept, ahead, behind : (..., D)
        Cosine, or 1; minus sine, or 0; sine, or 0.
    """

    shift: int
    kept: torch.Tensor
    ahead: torch.Tensor
    behind: torch.Tensor

    @classmethod
    def of(cls, angles: torch.Tensor, head_size: int, dtype: torch.dtype) -> Rotation:
        """Return the rotation by angles of shape (..., H, R), in radians."""
        size = angles.shape[-1]
        cos, sin, rest = angles.cos(), angles.sin(), angles.new_zeros((*angles.shape[:-1], head_size - 2 * size))
        none = torch.zeros_like(sin)
        parts = ([cos, cos, rest + 1], [-sin, none, rest], [none, sin, rest])
        return cls(size, *(torch.cat(part, dim=-1).flatten(-2).to(dtype) for part in parts))

    def expanded(self) -> Rotation:
        """Return the rotation of several vectors of each token, (..., 1, D)."""
        return Rotation(self.shift, self.kept.unsqueeze(-2), self.ahead.unsqueeze(-2), self.behind.unsqueeze(-2))


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Return the rotated vectors, (..., D)."""
    shift = rotation.shift
    ahead, behind = F.pad(x[..., shift:], (0, shift)), F.pad(x[..., :-shift], (shift, 0))
    return x * rotation.kept + ahead * rotation.ahead + behind * rotation.behind


def rotate_into(out: torch.Tensor, x: torch.Tensor, rotation: Rotation, sign: int = 1) -> None:
    """Write what `rotate` returns into ``out``, without the copies; with a sign of -1, of the inverse rotation."""
    shift = rotation.shift
    torch.mul(x, rotation.kept, out=out)
    out[..., :-shift].addcmul_(x[..., shift:], rotation.ahead[..., :-shift], value=sign)
    out[..., shift:].addcmul_(x[..., :-shift], rotation.behind[..., shift:], value=sign)


def rotated_qkv(qkv: torch.Tensor, rotation: Rotation | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries and keys, rotated, and values, each (..., D), of what one linear layer made of them, (..., 3D)."""
    if rotation is None:
        q, k, v = qkv.chunk(3, dim=-1)
        return q, k, v
    if torch.compiler.is_compiling():
        q, k, v = qkv.chunk(3, dim=-1)
        return rotate(q, rotation), rotate(k, rotation), v
    return RotateQueriesAndKeys.apply(qkv, *rotation)


class RotateQueriesAndKeys(torch.autograd.Function):
    """`rotated_qkv` with a backward pass that writes the three gradients straight into one tensor."""

    @staticmethod
    def forward(
        ctx: Any, qkv: torch.Tensor, shift: int, kept: torch.Tensor, ahead: torch.Tensor, behind: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries, keys and values."""
        ctx.shift = shift
        ctx.save_for_backward(kept, ahead, behind)
        qkv = qkv.unflatten(-1, (3, -1))
        rotated = torch.empty_like(qkv[..., :2, :], memory_format=torch.contiguous_format)
        rotate_into(rotated, qkv[..., :2, :], Rotation(shift, kept, ahead, behind).expanded())
        return rotated[..., 0, :], rotated[..., 1, :], qkv[..., 2, :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of what went in."""
        q, k, v = gradients
        rotation = Rotation(ctx.shift, *ctx.saved_tensors)
        together = torch.empty((*v.shape[:-1], 3, v.shape[-1]), dtype=v.dtype, device=v.device)
        rotate_into(together[..., 0, :], q, rotation, -1)
        rotate_into(together[..., 1, :], k, rotation, -1)
        together[..., 2, :] = v
        return together.flatten(-2), None, None, None, None


def attend(
    q_BHLK: torch.Tensor, k_BHLK: torch.Tensor, v_BHLK: torch.Tensor, key_mask: torch.Tensor | None
) -> torch.Tensor:
    """Return scaled-dot-product attention, (B, H, L, K).

    ``key_mask`` (B, 1, 1, L) is True for keys to attend to, or it is what is added to the scores, (B, H, L, L).
    """
    training_in_bf16 = q_BHLK.dtype == torch.bfloat16 and q_BHLK.requires_grad
    if not (training_in_bf16 and q_BHLK.device.type == "cpu"):
        return F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, attn_mask=key_mask)
    # torch's CPU kernel has a bf16 backward 7 to 15 times slower than plain matrix products at these lengths.
    with torch.autocast("cpu", enabled=False):
        scores_BHLL = (q_BHLK * q_BHLK.shape[-1] ** -0.5) @ k_BHLK.transpose(-1, -2)
        if key_mask is not None and key_mask.dtype != torch.bool:
            scores_BHLL = scores_BHLL + key_mask
        elif key_mask is not None:
            scores_BHLL = scores_BHLL.masked_fill(~key_mask, float("-inf"))
        return scores_BHLL.softmax(-1) @ v_BHLK


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the T real tokens of a padded batch stand, one spectrum after the other.

    Attributes
    ----------
    mask_BL : bool
        True for real tokens.
    places_T : int64
        Of each real token among the B * L of the batch.
    bounds_B1 : int32 of shape (B + 1,)
        Spectra, in the order of ``places_T``, have tokens ``bounds[i]`` to ``bounds[i + 1]``.
    bands : tuple of (slice, Packing)
        The tokens of spectra of about one length, and where they stand in a batch of these alone.
    """

    mask_BL: torch.Tensor
    places_T: torch.Tensor
    bounds_B1: torch.Tensor
    bands: tuple[tuple[slice, Packing], ...] = ()

    @classmethod
    def of(cls, mask_BL: torch.Tensor) -> Packing:
        """Return the packing of a batch with this mask, in its order."""
        bounds_B1 = F.pad(mask_BL.sum(1).cumsum(0), (1, 0)).to(torch.int32)
        return cls(mask_BL, mask_BL.flatten().nonzero().squeeze(1), bounds_B1)

    @classmethod
    def in_bands(cls, mask_BL: torch.Tensor) -> Packing:
        """Return a packing in bands of spectra of about one length, the shortest first."""
        lengths = mask_BL.sum(1).cpu().numpy()
        widths = band_widths(lengths)
        order = np.argsort(lengths, kind="stable")
        order_B = torch.from_numpy(order).to(mask_BL.device)
        ordered = cls.of(mask_BL[order_B])
        rows_T, slots_T = ordered.places_T // mask_BL.shape[1], ordered.places_T % mask_BL.shape[1]
        bands, first, token = [], 0, 0
        for width, last in zip(widths, np.searchsorted(lengths[order], widths, "right"), strict=True):
            band = cls.of(mask_BL[order_B[first:last], :width])
            bands.append((slice(token, token + len(band.places_T)), band))
            first, token = int(last), token + len(band.places_T)
        places_T = order_B[rows_T] * mask_BL.shape[1] + slots_T
        return cls(mask_BL, places_T, ordered.bounds_B1, tuple(bands))

    def pack(self, x_BL: torch.Tensor) -> torch.Tensor:
        """Return the real tokens of a tensor of shape (B, L, ...), as (T, ...)."""
        return x_BL.flatten(0, 1).index_select(0, self.places_T)

    def unpack(self, x_T: torch.Tensor) -> torch.Tensor:
        """Return the tokens of a tensor of shape (T, ...) at their places in (B, L, ...), with zeros between."""
        padded = x_T.new_zeros((self.mask_BL.numel(), *x_T.shape[1:]))
        return padded.index_copy(0, self.places_T, x_T).unflatten(0, self.mask_BL.shape)

    def attend(self, q_THK: torch.Tensor, k_THK: torch.Tensor, v_THK: torch.Tensor) -> torch.Tensor:
        """Return scaled-dot-product attention within each spectrum, (T, H, K)."""
        if is_fused(q_THK.device, q_THK.dtype, q_THK.shape[-1]):
            longest = self.mask_BL.shape[1]  # a bound is enough, and to ask for the longest would wait for the GPU
            bounds = self.bounds_B1
            mixed_THK: torch.Tensor = variable_length_attention()(q_THK, k_THK, v_THK, bounds, bounds, longest, longest)
            return mixed_THK
        if self.bands:
            return torch.cat([band.attend(q_THK[s], k_THK[s], v_THK[s]) for s, band in self.bands])
        q_BHLK, k_BHLK, v_BHLK = (self.unpack(x).transpose(1, 2) for x in (q_THK, k_THK, v_THK))
        return self.pack(attend(q_BHLK, k_BHLK, v_BHLK, self.mask_BL[:, None, None, :]).transpose(1, 2))


def band_widths(lengths: np.ndarray) -> np.ndarray:
    """Return to which lengths the spectra of a batch are padded for attention, ascending."""
    number = int(lengths.sum()) // TOKENS_OF_A_BAND
    return even_lengths(lengths, min(MOST_BANDS, max(1, number)))


def packing_for(mask_BL: torch.Tensor, dtype: torch.dtype, head_size: int) -> Packing | None:
    """Return how to pack a batch, or None where that would not make it faster.

    Packed tokens make norms and linear layers free of padding. Attention is so too where there is a kernel for
    sequences of any length; elsewhere it is in bands of about one length, at the price of copies there and back.
    """
    padding = 1 - float(mask_BL.float().mean())
    if is_fused(mask_BL.device, dtype, head_size):
        return Packing.of(mask_BL) if padding > 0 else None
    return Packing.in_bands(mask_BL) if padding > PADDING_WORTH_PACKING else None


def attended_tokens(
    lengths: np.ndarray, num_slots: int, device: torch.device, dtype: torch.dtype, head_size: int
) -> int:
    """Return for how many tokens attention is computed, padding among them, in a batch that `packing_for` may pack.

    Parameters
    ----------
    lengths : int array of shape (n_spectra,)
    num_slots : int
        Tokens of the padded batch.
    """
    tokens = int(lengths.sum())
    if is_fused(device, dtype, head_size):
        return tokens
    if 1 - tokens / num_slots <= PADDING_WORTH_PACKING:
        return num_slots
    widths = band_widths(lengths)
    return int(widths[np.searchsorted(widths, lengths)].sum())


def is_fused(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Return whether torch has a kernel for attention over packed sequences: flash attention, on GPUs since Ampere."""
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and head_size % 8 == 0
        and head_size <= LARGEST_FUSED_HEAD
        and _has_flash_attention(device.index or 0)
    )


@cache
def _has_flash_attention(device_index: int) -> bool:
    if torch.version.hip is not None or torch.cuda.get_device_capability(device_index) < (8, 0):
        return False
    try:
        variable_length_attention()
    except ImportError:  # torch before 2.10
        return False
    return bool(torch.backends.cuda.is_flash_attention_available())


@cache
def variable_length_attention() -> Callable[..., Any]:
    """Return `torch.nn.attention.varlen.varlen_attn`."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn
