"""What a worker says of itself in its heartbeat, and so what a gateway knows of the fleet."""

from enum import StrEnum

import msgspec

from shared.job import MediaKind, SamplingParams
from shared.tools import ToolFormat

ADAPTER_NAME = r"\w[\w.:/@+-]{0,127}"
"""What an adapter may be called: it is a model id, and the command line separates names by blanks."""


class WorkerState(StrEnum):
    """Where a worker stands in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One worker, as its last heartbeat described it."""

    id: str
    host: str
    pid: int
    version: str
    device: str
    """As `cpu` or `cuda:0 (NVIDIA H200)`."""
    model: str
    """The id clients ask for, and the name of the queue the worker pulls from."""
    model_type: str
    state: WorkerState
    modalities: tuple[MediaKind, ...] = ()
    """Media kinds the model takes beside text."""
    max_model_len: int = 0
    """Most tokens of prompt and answer together."""
    sampling: SamplingParams = SamplingParams()
    """The model's own defaults; the gateway fills a request's gaps from them."""
    slots: int = 0
    """Sequences the worker decodes at once."""
    running: int = 0
    """Jobs it holds now."""
    jobs_per_s: float = 0.0
    """Jobs ended per second, over the last half minute."""
    started_s: float = 0.0
    """Unix time the process started."""
    progress: str = ""
    """While loading: what is being done and how far it is, in a few words."""
    adapters: tuple[str, ...] = ()
    """Ids of the adapters it serves beside the model."""
    refused_adapters: dict[str, str] = {}
    """Adapters it was to load and can't, and why."""
    fingerprint: str = ""
    """What its answers depend on beside the requests, as a short name; empty while it loads."""
    tool_format: ToolFormat | None = None
    """How its model is told of tools; None refuses them."""
