"""How long a context fits beside the weights: what was asked for, else as much of the model's own as memory gives."""

from collections.abc import Callable
from typing import Any

from worker.engine.cache import fitting_width
from worker.engine.capture import Capture, CudaCapture, reason_to_stay_eager
from worker.engine.torch_runner import TorchRunner, sample_cache
from worker.engine.whole import reason_to_read_whole
from worker.models.family import LoadError
from worker.settings import WorkerSettings

LEAST_CONTEXT = 2048
"""A shorter context than this is the operator's to choose."""


def start_runner(model: Any, settings: WorkerSettings, trained: int, report: Callable[[str], None]) -> TorchRunner:
    """Allocate the cache; raises LoadError with advice if it can't be.

    `trained` is the model's own context in tokens. It is cut to what fits only where nobody named a length.
    """
    width = settings.max_model_len or trained
    if settings.max_model_len is None:
        fitting = fitting_width(sample_cache(model), settings.max_num_seqs)
        if fitting < trained:
            width = min(trained, max(fitting, LEAST_CONTEXT))
            report(f"context cut from {trained} to {width} tokens, so that {settings.max_num_seqs} sequences fit")
    if (reason := reason_to_read_whole(model, width)) is not None:
        report(f"prompts are read whole and not shared: {reason}")
    try:
        return TorchRunner(
            model,
            settings.max_num_seqs,
            width,
            settings.media_cache_bytes,
            capture=_capture(model, settings, width, report),
            overlaps=model.device.type == "cuda",
        )
    except MemoryError as error:
        raise LoadError(str(error)) from error


def _capture(model: Any, settings: WorkerSettings, width: int, report: Callable[[str], None]) -> Capture | None:
    """Return what records decode steps; the CPU has nothing that does, and would pay for the padding."""
    if settings.enforce_eager or model.device.type != "cuda":
        return None
    if (reason := reason_to_stay_eager(model, width)) is not None:
        report(f"decodes without CUDA graphs: {reason}")
        return None
    return CudaCapture(model.device)
