"""What a checkpoint of a native transformers class is made of: its class, its language model, how it can run."""

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

from worker.engine.cache import ATTENTION, LINEAR, layer_kinds
from worker.models.device import Placement
from worker.models.family import LoadError

_NEEDED = ("position_ids", "past_key_values")
"""What a forward has to take, so that rows of different lengths can share a step."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One checkpoint's configuration and the class it is loaded into."""

    config: Any
    model_class: Any

    @property
    def language(self) -> Any:
        """The configuration of the half that writes the answer."""
        return self.config.get_text_config(decoder=True)

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and answer; None if the configuration doesn't say."""
        return getattr(self.language, "max_position_embeddings", None)

    @property
    def obstacle(self) -> str | None:
        """Why its sequences can't be decoded together and run alone; None if they can."""
        if self.config.is_encoder_decoder or self.language.is_encoder_decoder:
            return "it is an encoder-decoder"
        if absent := [name for name in _NEEDED if name not in signature(self.model_class.forward).parameters]:
            return f"its forward takes no {' and no '.join(absent)}"
        if getattr(self.language, "cross_attention_layers", None):
            return "it looks at pictures by cross-attention"
        kinds = {*layer_kinds(self.language)}
        if odd := sorted(kinds - ATTENTION - LINEAR):
            return f"it has layers of kind {', '.join(odd)}"
        return None if kinds & ATTENTION else "it has no attention layer"


def read_architecture(directory: Path) -> Architecture:
    """Return what the directory holds; raises LoadError if transformers has no class for it."""
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise LoadError(
            f"transformers can't read {directory / 'config.json'} ({reason}); "
            "if it is one of the model types of `baton models`, add --model_type"
        ) from error
    for auto in (AutoModelForMultimodalLM, AutoModelForCausalLM):
        if type(config) in auto._model_mapping:
            return Architecture(config, auto._model_mapping[type(config)])
    raise LoadError(f"{directory} holds a {config.model_type}, which is no chat model that transformers knows")


def load_network(directory: Path, architecture: Architecture, placement: Placement) -> Any:
    """Return the model with its weights, where they are read to; raises LoadError if they can't be."""
    try:
        model = architecture.model_class.from_pretrained(
            directory, dtype=placement.dtype, device_map={"": placement.reads_to}, trust_remote_code=False
        )
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise LoadError(f"{directory} can't be loaded: {str(error).strip()}") from error
    return model.eval()
