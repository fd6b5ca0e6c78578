"""Attention over the tokens of each spectrum: of padded batches, and of tokens packed one spectrum after the other.

Shape suffixes: T real tokens of a batch, packed; the others as in `ionbed.encoder.modeling_ionbed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

PADDING_WORTH_PACKING = 0.15
"""Share of padding from which packed tokens are faster where attention itself still needs them padded."""
LARGEST_FUSED_HEAD = 256


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first 2R dimensions of each head by the given angles and leave the others; in place in inference.

    Parameters
    ----------
    x : (..., H, K)
    cos, sin : (..., H, R)
    """
    size = cos.shape[-1]
    first, second, rest = x.split([size, size, x.shape[-1] - 2 * size], dim=-1)
    if torch.is_grad_enabled():
        return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)
    turned_first = torch.addcmul(first * cos, second, sin, value=-1)
    second.mul_(cos).addcmul_(first, sin)  # in place: the memory traffic of a copy is what this costs
    first.copy_(turned_first)
    return x


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
        Spectrum i has tokens ``bounds[i]`` to ``bounds[i + 1]``.
    """

    mask_BL: torch.Tensor
    places_T: torch.Tensor
    bounds_B1: torch.Tensor

    @classmethod
    def of(cls, mask_BL: torch.Tensor) -> Packing:
        """Return the packing of a batch with this mask."""
        bounds_B1 = F.pad(mask_BL.sum(1).cumsum(0), (1, 0)).to(torch.int32)
        return cls(mask_BL, mask_BL.flatten().nonzero().squeeze(1), bounds_B1)

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
            return variable_length_attention()(q_THK, k_THK, v_THK, self.bounds_B1, self.bounds_B1, longest, longest)
        q_BHLK, k_BHLK, v_BHLK = (self.unpack(x).transpose(1, 2) for x in (q_THK, k_THK, v_THK))
        return self.pack(attend(q_BHLK, k_BHLK, v_BHLK, self.mask_BL[:, None, None, :]).transpose(1, 2))


def packing_for(mask_BL: torch.Tensor, dtype: torch.dtype, head_size: int) -> Packing | None:
    """Return how to pack a batch, or None where that would not make it faster.

    Packed tokens make norms and linear layers free of padding. Attention is so too where there is a kernel for
    sequences of any length; elsewhere it is padded, at the price of copies there and back.
    """
    padding = 1 - float(mask_BL.float().mean())
    worth = 0.0 if is_fused(mask_BL.device, dtype, head_size) else PADDING_WORTH_PACKING
    return Packing.of(mask_BL) if padding > worth else None


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
def variable_length_attention() -> Callable[..., torch.Tensor]:
    """Return `torch.nn.attention.varlen.varlen_attn`."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn
