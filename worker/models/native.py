"""From a configuration and lazily read weights to a native model on its devices."""

from typing import Any

from transformers import PretrainedConfig
from transformers.utils.logging import disable_progress_bar

from worker.models.device import Placement
from worker.models.family import LoadError
from worker.models.placement import place
from worker.models.tuned import merge_changes
from worker.models.weights import CountedWeights


def build_native(
    model_class: Any,
    config: PretrainedConfig,
    weights: CountedWeights,
    placement: Placement,
    attention: str | dict[str, str] = "sdpa",
) -> Any:
    """Return the model in evaluation mode, where it belongs; raises LoadError unless every parameter is there.

    `attention` names the attention function, or one for each part of the configuration.
    """
    disable_progress_bar()  # the weights report for themselves
    model, loading = model_class.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=placement.dtype,
        device_map={"": placement.reads_to},
        attn_implementation=attention,
        ignore_mismatched_sizes=True,  # told below, like everything else that is wrong
        output_loading_info=True,
    )
    if absent := sorted(loading["missing_keys"]) or sorted(loading["mismatched_keys"]):
        raise LoadError(f"the checkpoint lacks {len(absent)} weights or has them in another shape, as {absent[0]}")
    merge_changes(model, weights.pending, "the adapter")
    place(model, placement)
    return model
