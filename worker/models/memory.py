"""How long a context fits beside the weights: what was asked for, else as much of the model's own as memory gives.

What everything else takes is found out by a trial of the largest request, before a row is allocated.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from worker.engine.alone import AloneRunner
from worker.engine.cache import pool_bytes
from worker.engine.capture import CudaCapture, reason_to_stay_eager
from worker.engine.encoder import Encoder
from worker.engine.failure import is_out_of_memory
from worker.engine.forward import Record
from worker.engine.graphs import Graphs
from worker.engine.host import bounded
from worker.engine.meter import ByDevice, Meter, find_space
from worker.engine.pool import overlaid
from worker.engine.prompt import Prompt
from worker.engine.runner import MediaRoom
from worker.engine.script import Scripts
from worker.engine.torch_runner import TorchRunner, sample_cache
from worker.engine.trial import try_alone, try_rows
from worker.engine.whole import reason_to_read_whole
from worker.models.budget import HOST, Budget, PoolBytes, Trial, amount, describe, find_width
from worker.models.family import LoadError
from worker.models.largest import Extent, Largest
from worker.settings import WorkerSettings

LEAST_CONTEXT = 2048
"""A shorter context than this is the operator's to choose."""

_NO_MEMORY = (
    "the largest request finds no memory beside the weights: lower --max_num_batched_tokens, --max_num_seqs, "
    "--max_model_len, or what media may be (--max_image_pixels, --max_video_pixels), or take a smaller model"
)
_CAUTION = 0.9
"""Of what fits now is named as what will: the next start won't find quite as much memory free."""

_LOSS = 1.25
"""Allocators lose some memory between blocks, and more of it the longer they run."""
_CHEAPER = 16
"""How much shorter a chunk is tried first: what it takes, times this, is the most that a whole one takes."""

Report = Callable[[str], None]
Run = Callable[[int, int, Sequence[Prompt], int], int]
"""Reads prompts with so many rows of so many tokens in chunks of so many; returns how many were read at once."""


def start_runner(model: Any, settings: WorkerSettings, trained: int, report: Report, largest: Largest) -> TorchRunner:
    """Allocate the cache; raises LoadError with advice if it doesn't fit.

    `trained` is the model's own context in tokens. It is cut to what fits only where nobody named a length.
    """
    sample, media_bytes = sample_cache(model), settings.media_cache_bytes

    def run(num_rows: int, width: int, prompts: Sequence[Prompt], chunk: int) -> int:
        runner = TorchRunner(model, num_rows, width, allocate=overlaid, record=_record(model, settings))
        return try_rows(runner, prompts, num_rows, chunk)

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
        record=_record(model, settings),
        overlaps=model.device.type == "cuda",
    )


def start_alone(model: Any, settings: WorkerSettings, context: int, report: Report, largest: Largest) -> AloneRunner:
    """Return a runner of one request at a time; raises LoadError with advice if the largest doesn't fit."""

    def run(num_rows: int, width: int, prompts: Sequence[Prompt], chunk: int) -> int:
        return try_alone(AloneRunner(model, width), prompts)

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
    wanted = settings.max_model_len or trained
    least, meter = min(LEAST_CONTEXT, wanted), Meter(budget.spaces)

    report("trying the largest request")
    trial, width = find_width(budget, partial(_try, settings, budget, meter, largest, run), least, wanted)
    if trial is None:
        raise LoadError(_NO_MEMORY)
    if width < (wanted if settings.max_model_len else least):
        raise LoadError(_advice(budget, trial, width, wanted))
    if width < wanted:
        rows = f"{budget.num_rows} sequences fit" if budget.num_rows > 1 else "it fits"
        report(f"context cut from {wanted} to {width} tokens, so that {rows}")
    for line in describe(budget, trial, width, weight_bytes(model)):
        report(line)
    return width, _media_room(settings, budget, trial, width)


def _try(
    settings: WorkerSettings, budget: Budget, meter: Meter, largest: Largest, run: Run, width: int
) -> Trial | None:
    """Return what the largest request takes, or more if that fits as well; None if there isn't as much.

    A short chunk is tried first, because a processor needs long for a whole one.
    """
    most, trial = settings.max_num_batched_tokens, None
    extent = Extent(max(1, width - 1), settings.max_decoded_bytes)
    prompts, num_rows = largest(extent), max(1, budget.most_rows(None, width))
    for chunk in (max(1, most // _CHEAPER), most) if HOST in budget.spaces else (most,):
        try:
            with bounded(budget.left(HOST)) if HOST in budget.spaces else nullcontext():
                num_read, taken = meter.peak(partial(run, num_rows, width, prompts, chunk))
        except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
            if not is_out_of_memory(error):
                raise
            return None
        trial = _trial(num_rows, width, prompts, taken, max(1.0, min(most, width) / num_read))
        if num_read >= min(most, width - 1) or budget.fits(trial, width):
            break
    return trial


def _trial(num_rows: int, width: int, prompts: Sequence[Prompt], taken: ByDevice, growth: float) -> Trial:
    return Trial(
        num_rows,
        width,
        activations={device: int(num_bytes * growth * _LOSS) for device, num_bytes in taken.items()},
        feature_bytes=max(prompt.feature_bytes for prompt in prompts),
        is_at_once=not all(piece.features for prompt in prompts for piece in prompt.pieces),
    )


def _advice(budget: Budget, trial: Trial, width: int, wanted: int) -> str:
    """Return why rows of that many tokens don't fit, and what would."""
    device = min(budget.spaces, key=lambda device: budget.over(device, trial, wanted))
    needed = budget.left(device) - budget.over(device, trial, wanted)
    mends = {"--max_model_len": width, "--max_num_seqs": budget.most_rows(trial, wanted)}
    named = " or ".join(f"{name} {int(most * _CAUTION)}" for name, most in mends.items() if int(most * _CAUTION))
    return (
        f"{budget.num_rows} sequences of {wanted} tokens take up to {amount(needed)} beside the weights, and "
        f"--gpu_memory_utilization {budget.share:g} leaves {amount(budget.left(device))} of {device} for them: "
        + (f"set {named} or less" if named else "take a smaller model, or more memory")
    )


def _media_room(settings: WorkerSettings, budget: Budget, trial: Trial, width: int) -> MediaRoom:
    """Return what media that wait, or may be read again, have of the host's memory: half of what nobody else has.

    The other half is for what they are made from.
    """
    tried = trial.feature_bytes
    over = budget.over(HOST, trial, width) if HOST in budget.spaces else find_space(HOST).left(budget.share)
    total = tried + max(0, over) // 2
    most = settings.max_decoded_bytes
    if trial.is_at_once:  # what encodes all media of a prompt takes no more than so many times as much for more
        most = min(most, int(tried * (1 + budget.over(budget.first, trial, width) / trial.taken(budget.first))))
    return MediaRoom(total_bytes=total, most_bytes=max(tried, min(most, total)))


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


def _record(model: Any, settings: WorkerSettings) -> Record | None:
    """Return what records decode steps on the model's device."""
    if settings.enforce_eager:
        return None
    return partial(Graphs, CudaCapture(model.device)) if model.device.type == "cuda" else Scripts


def _reason_to_stay_eager(model: Any, settings: WorkerSettings, width: int) -> str | None:
    """Return what the operator didn't ask for, and may wonder about."""
    return None if settings.enforce_eager or model.device.type != "cuda" else reason_to_stay_eager(model, width)
