"""How long a context fits beside the weights: what was asked for, else as much of the model's own as memory gives.

What everything else takes is found out by a trial of the largest request, before a row is allocated.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from worker.engine.alone import AloneRunner
from worker.engine.cache import pool_bytes
from worker.engine.capture import Capture, CudaCapture, reason_to_stay_eager
from worker.engine.encoder import Encoder
from worker.engine.failure import is_out_of_memory
from worker.engine.meter import ByDevice, Meter, find_space
from worker.engine.pool import overlaid
from worker.engine.prompt import Prompt
from worker.engine.runner import MediaRoom
from worker.engine.torch_runner import TorchRunner, sample_cache
from worker.engine.trial import try_alone, try_rows
from worker.engine.whole import reason_to_read_whole
from worker.models.budget import Budget, PoolBytes, Trial, amount, describe, find_widest
from worker.models.family import LoadError
from worker.models.largest import Largest
from worker.settings import WorkerSettings

LEAST_CONTEXT = 2048
"""A shorter context than this is the operator's to choose."""

_CAUTION = 0.9
"""Of what fits now is named as what will: the next start won't find quite as much memory free."""

Report = Callable[[str], None]
Run = Callable[[int, int, Sequence[Prompt]], Callable[[], None]]
"""Makes a runner for so many rows of so many tokens, and returns what reads the prompts with it."""


def start_runner(model: Any, settings: WorkerSettings, trained: int, report: Report, largest: Largest) -> TorchRunner:
    """Allocate the cache; raises LoadError with advice if it doesn't fit.

    `trained` is the model's own context in tokens. It is cut to what fits only where nobody named a length.
    """
    sample, media_bytes = sample_cache(model), settings.media_cache_bytes
    wanted = settings.max_model_len or trained

    def run(num_rows: int, width: int, prompts: Sequence[Prompt]) -> Callable[[], None]:
        recorded = _capture(model, settings, wanted)
        runner = TorchRunner(model, num_rows, width, media_bytes, allocate=overlaid, capture=recorded, context=wanted)
        return lambda: try_rows(runner, prompts, num_rows, settings.max_num_batched_tokens)

    budget = _open(model, settings, settings.max_num_seqs, partial(pool_bytes, sample))
    width, room = _share_out(model, settings, budget, trained, report, largest, run)
    if (reason := reason_to_read_whole(model, width)) is not None:
        report(f"prompts are read whole and not shared: {reason}")
    if (reason := _reason_to_stay_eager(model, settings, width)) is not None:
        report(f"decodes without CUDA graphs: {reason}")
    return TorchRunner(
        model,
        settings.max_num_seqs,
        width,
        media_bytes,
        media_room=room,
        capture=_capture(model, settings, width),
        overlaps=model.device.type == "cuda",
    )


def start_alone(model: Any, settings: WorkerSettings, context: int, report: Report, largest: Largest) -> AloneRunner:
    """Return a runner of one request at a time; raises LoadError with advice if the largest doesn't fit."""

    def run(num_rows: int, width: int, prompts: Sequence[Prompt]) -> Callable[[], None]:
        return lambda: try_alone(AloneRunner(model, width), prompts)

    budget = _open(model, settings, 1, lambda num_rows, width: {})
    width, room = _share_out(model, settings, budget, context, report, largest, run)
    return AloneRunner(model, width, media_room=room)


def _open(model: Any, settings: WorkerSettings, num_rows: int, pools: PoolBytes) -> Budget:
    devices = dict.fromkeys((model.device, *pools(1, 1), *weight_bytes(model)))
    return Budget(
        spaces={device: find_space(device) for device in devices},
        share=settings.gpu_memory_utilization,
        num_rows=num_rows,
        pool_bytes=pools,
        media_bytes=partial(_media_bytes, model, settings.media_cache_bytes),
    )


def _share_out(
    model: Any, settings: WorkerSettings, budget: Budget, trained: int, report: Report, largest: Largest, run: Run
) -> tuple[int, MediaRoom]:
    """Return how long rows are, and what is left for media that wait; raises LoadError if they are to be longer."""
    wanted, meter = settings.max_model_len or trained, Meter(budget.spaces)
    least = min(LEAST_CONTEXT, wanted)
    num_tried = max(1, budget.most_rows(None, least))  # all of them, unless even their cache alone is too large

    tried: list[tuple[Trial, int]] = []

    def measure(width: int) -> Trial:
        with _finding_memory():
            prompts = largest(width - 1)
            seen = _seen(prompts)
            if (shorter := _sure(budget, tried, prompts, width)) is not None:
                return shorter.longer(budget, width, *seen)
            trial = Trial(num_tried, width, meter.peak(run(num_tried, width, prompts)), *seen)
        tried.append((trial, _num_with_media(prompts)))
        return trial

    report("trying the largest request")
    trial = find_widest(budget.with_rows(num_tried), measure, least, wanted)
    if not budget.fits(trial, trial.width) or (settings.max_model_len and trial.width < wanted):
        raise LoadError(_advice(budget, trial, wanted))
    if trial.width < wanted:
        rows = f"{budget.num_rows} sequences fit" if budget.num_rows > 1 else "it fits"
        report(f"context cut from {wanted} to {trial.width} tokens, so that {rows}")
    for line in describe(budget, trial, weight_bytes(model)):
        report(line)
    return trial.width, _media_room(settings, budget, trial)


@contextmanager
def _finding_memory() -> Iterator[None]:
    """Say what is too large if not even the trial finds memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
        if not is_out_of_memory(error):
            raise
        raise LoadError(
            "the largest request finds no memory beside the weights: lower --max_num_batched_tokens, --max_num_seqs, "
            "--max_model_len, or what media may be (--max_image_pixels, --max_video_pixels), or take a smaller model"
        ) from error


def _advice(budget: Budget, trial: Trial, wanted: int) -> str:
    """Return why rows of that many tokens don't fit, and what would."""
    device = min(budget.spaces, key=lambda device: budget.over(device, trial, wanted))
    needed = budget.left(device) - budget.over(device, trial, wanted)
    mends = {"--max_model_len": budget.widest(trial, wanted), "--max_num_seqs": budget.most_rows(trial, wanted)}
    named = " or ".join(f"{name} {int(most * _CAUTION)}" for name, most in mends.items() if int(most * _CAUTION))
    return (
        f"{budget.num_rows} sequences of {wanted} tokens take up to {amount(needed)} beside the weights, and "
        f"--gpu_memory_utilization {budget.share:g} leaves {amount(budget.left(device))} of {device} for them: "
        + (f"set {named} or less" if named else "take a smaller model, or more memory")
    )


def _sure(budget: Budget, tried: list[tuple[Trial, int]], prompts: Sequence[Prompt], width: int) -> Trial | None:
    """Return a shorter trial that saw the same kinds of media, if even the most that may follow from it fits."""
    found = (trial for trial, num_seen in tried if num_seen == _num_with_media(prompts) and budget.fits(trial, width))
    return next(found, None)


def _num_with_media(prompts: Sequence[Prompt]) -> int:
    return sum(bool(prompt.pieces) for prompt in prompts)


def _seen(prompts: Sequence[Prompt]) -> tuple[int, int]:
    """Return what the media of one prompt take at most, and what those of one do that has to be encoded at once."""
    at_once = (p.feature_bytes for p in prompts if not all(piece.features for piece in p.pieces))
    return max(prompt.feature_bytes for prompt in prompts), max(at_once, default=0)


def _media_room(settings: WorkerSettings, budget: Budget, trial: Trial) -> MediaRoom:
    """Return what media that wait, or may be read again, have of the host's memory: on the CPU what nobody else has."""
    most = trial.most_at_once or max(trial.feature_bytes, settings.max_decoded_bytes)
    host = torch.device("cpu")
    if budget.first == host:
        left = budget.over(host, trial, trial.width) + trial.feature_bytes
    else:
        left = find_space(host).left(budget.share)
    return MediaRoom(total_bytes=max(left, most), most_bytes=most)


def _media_bytes(model: Any, remembered: int, width: int) -> int:
    """Return what encoded media take: those that are remembered, or those of the prompt that is read, if they are more.

    What a tower hands to deeper layers (deepstack) comes on top of each.
    """
    if not Encoder(model, remembered).has_towers:
        return 0
    vision = getattr(model.config, "vision_config", None)
    layers = 1 + len(getattr(vision, "deepstack_visual_indexes", None) or ())
    row_bytes: int = model.config.get_text_config(decoder=True).hidden_size * model.dtype.itemsize
    return max(remembered, width * layers * row_bytes)


def weight_bytes(model: Any) -> ByDevice:
    """Return what a model's weights take, by device."""
    taken: Counter[torch.device] = Counter()
    for tensor in (*model.parameters(), *model.buffers()):
        taken[tensor.device] += tensor.nbytes
    return dict(taken)


def _capture(model: Any, settings: WorkerSettings, width: int) -> Capture | None:
    """Return what records decode steps; the CPU has nothing that does, and would pay for the padding."""
    if settings.enforce_eager or model.device.type != "cuda" or reason_to_stay_eager(model, width) is not None:
        return None
    return CudaCapture(model.device)


def _reason_to_stay_eager(model: Any, settings: WorkerSettings, width: int) -> str | None:
    """Return what the operator didn't ask for, and may wonder about."""
    return None if settings.enforce_eager or model.device.type != "cuda" else reason_to_stay_eager(model, width)
