"""What the gateway holds of a request while its client waits."""

from dataclasses import dataclass

from api.keyring import ANYBODY, Caller
from shared.job import ChatJob
from shared.kept import KeptResponse
from shared.tracing import UNTRACED, Span


@dataclass(frozen=True, slots=True)
class Order:
    """An accepted job, and its media's bytes, should Redis lose them."""

    job: ChatJob
    media: tuple[bytes, ...] = ()
    caller: Caller = ANYBODY
    span: Span = UNTRACED
    """The HTTP request's, of which all that is done for the order is a part."""
    kept: KeptResponse | None = None
    """What is kept of it for later, if anything."""
    needs_all_events: bool = False
    """Whether no event may be joined with another one, however slow the client."""
    is_background: bool = False
    """Whether it goes on when nobody listens."""
