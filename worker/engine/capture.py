"""How a step is recorded, so that a replay asks all of it of the device in one call; and what can't be recorded."""

from collections.abc import Callable
from typing import Any

import torch

from worker.engine.cache import LINEAR, layer_kinds
from worker.engine.rotary import stretching

NUM_WARM_UPS = 2
"""Runs before the recording, in which libraries choose their kernels and take their memory."""

Step = Callable[[], None]
Capture = Callable[[Step], Step]
"""Returns what does again what the step did, with whatever its tensors hold by then."""


def rerun(step: Step) -> Step:
    """Record nothing: on the CPU a step is its own replay."""
    return step


class CudaCapture:
    """Records CUDA graphs of one GPU, all in the same memory: of no two of them anything is alive at once."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> Step:
        """Return the replay; raises whatever torch does where a step can't be recorded."""
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        # Named here as well, because torch doesn't leave the stream of a recording that fails. Other threads go on
        # with the device meanwhile.
        with torch.cuda.stream(self._stream):
            for _ in range(NUM_WARM_UPS):
                step()
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                step()
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        return graph.replay


def reason_to_stay_eager(model: Any, max_model_len: int) -> str | None:
    """Return why a model's steps aren't the same whatever its rows are, of at most so many tokens; None if they are."""
    config = model.config.get_text_config(decoder=True)
    if kinds := sorted(LINEAR.intersection(layer_kinds(config))):
        return f"its layers of kind {', '.join(kinds)} keep a running state, which has no place for rows of nobody"
    if any(kind == "dynamic" and max_model_len > trained for kind, trained in stretching(config)):
        return "beyond its trained length its rotary positions (dynamic) are what the host makes of the longest row"
    if len({parameter.device for parameter in model.parameters()}) > 1:
        return "it is spread over several devices, and a graph is one device's"
    return None
