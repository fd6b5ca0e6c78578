"""Low-rank adaptation (LoRA) of the encoder's linear layers by peft, merged into plain weights in the end.

Hu et al. 2021: beside each weight matrix W, which stays as it is, a product B A of low rank is learned.
"""

from __future__ import annotations

from ...encoder.modeling_ionbed import IonbedModel
from ...errors import InputError
from .config import EncoderConfig

LAYERS = ("qkv", "attention_out", "mlp_in", "mlp_out")
"""Linear layers of a block (`ionbed.encoder.modeling_ionbed.Block`) that are adapted."""


def check_peft() -> None:
    """Raise `InputError` if peft is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise InputError(
            "init.train is lora, which needs peft; run pip install 'ionbed[lora]', or choose frozen or full"
        ) from None


class Adapter:
    """Adapts an encoder in place; all of its own weights are frozen.

    Raises
    ------
    InputError
        peft is not installed.
    """

    def __init__(self, encoder: IonbedModel, config: EncoderConfig) -> None:
        check_peft()
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        options = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=list(LAYERS),
        )
        self._adapted = LoraModel(encoder, options, "default")

    def merge(self) -> None:
        """Add what was learned to the encoder's weights: it has the modules that it had before."""
        self._adapted.merge_and_unload()
