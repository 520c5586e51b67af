"""What the gateway holds of a request while its client waits."""

from dataclasses import dataclass

from shared.job import ChatJob


@dataclass(frozen=True, slots=True)
class Order:
    """An accepted job, and its media's bytes, should Redis lose them."""

    job: ChatJob
    media: tuple[bytes, ...] = ()
