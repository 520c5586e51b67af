"""Which GPU each worker of a deployment sees: one each, as far as there are enough."""

import os

from worker.gpu import DEVICE_ORDER, PCI_ORDER, VISIBLE_DEVICES, list_gpus


def pins(num_workers: int | None) -> list[dict[str, str]]:
    """Return the variables of each worker; as many workers as GPUs are visible, or one, if no number is given."""
    gpus = _visible_gpus()
    if not gpus:
        return [{} for _ in range(num_workers or 1)]
    return [gpus[number % len(gpus)] for number in range(num_workers or len(gpus))]


def _visible_gpus() -> list[dict[str, str]]:
    if (visible := os.environ.get(VISIBLE_DEVICES)) is not None:
        return [{VISIBLE_DEVICES: device} for device in visible.split(",") if device not in {"", "-1"}]
    return [{VISIBLE_DEVICES: gpu.index, DEVICE_ORDER: PCI_ORDER} for gpu in list_gpus()]
