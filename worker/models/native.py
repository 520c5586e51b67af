"""From a configuration and lazily read weights to a native model on its device."""

from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.utils.logging import disable_progress_bar

from worker.models.family import LoadError
from worker.models.tuned import merge_changes
from worker.models.weights import CountedWeights


def build_native(
    model_class: Any,
    config: PretrainedConfig,
    weights: CountedWeights,
    dtype: torch.dtype,
    device: torch.device,
    attention: str | dict[str, str] = "sdpa",
) -> Any:
    """Return the model in evaluation mode; raises LoadError unless every parameter is there.

    `attention` names the attention function, or one for each part of the configuration.
    """
    disable_progress_bar()  # the weights report for themselves
    model, loading = model_class.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype,
        device_map={"": device},
        attn_implementation=attention,
        ignore_mismatched_sizes=True,  # told below, like everything else that is wrong
        output_loading_info=True,
    )
    if absent := sorted(loading["missing_keys"]) or sorted(loading["mismatched_keys"]):
        raise LoadError(f"the checkpoint lacks {len(absent)} weights or has them in another shape, as {absent[0]}")
    merge_changes(model, weights.pending, "the adapter")
    return model
