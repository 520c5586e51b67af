"""Which GPU each worker of a deployment sees: one each, as far as there are enough, or a share of them."""

import os
from itertools import pairwise

from worker.gpu import DEVICE_ORDER, PCI_ORDER, VISIBLE_DEVICES, list_gpus


def pins(num_workers: int | None, *, is_spread: bool = False) -> list[dict[str, str]]:
    """Return the variables of each worker; as many workers as GPUs are visible, or one, if no number is given.

    Of models that are spread, a worker takes all GPUs, or its equal share of them.
    """
    gpus, order = _visible_gpus()
    if not gpus:
        return [{} for _ in range(num_workers or 1)]
    if is_spread:
        shares = _shares(gpus, num_workers or 1)
    else:
        shares = [[gpus[number % len(gpus)]] for number in range(num_workers or len(gpus))]
    return [{VISIBLE_DEVICES: ",".join(share), **order} for share in shares]


def _shares(gpus: list[str], num_workers: int) -> list[list[str]]:
    edges = [len(gpus) * number // num_workers for number in range(num_workers + 1)]
    return [gpus[start:end] for start, end in pairwise(edges)]


def _visible_gpus() -> tuple[list[str], dict[str, str]]:
    """Return the GPUs' names, and in which order they are meant."""
    if (visible := os.environ.get(VISIBLE_DEVICES)) is not None:
        return [device for device in visible.split(",") if device not in {"", "-1"}], {}
    return [gpu.index for gpu in list_gpus()], {DEVICE_ORDER: PCI_ORDER}
