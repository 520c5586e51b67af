"""What is kept of a response beside its job's log: enough for any gateway to show it, or to go on from it."""

import msgspec

from shared.job import JobId, Message


class KeptResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Written by the gateway that accepts a response, read by all; the answer itself is in the job's log."""

    id: JobId
    key_name: str
    """The only API key that may read it, by name."""
    heading: bytes
    """The response before there is an answer, as JSON."""
    messages: tuple[Message, ...]
    """The conversation up to the answer, without the instructions, which are not carried over to the next response."""
    places: tuple[str, ...]
    """Where the client wrote each message of the job, as `input[0]`; errors about one name its place."""
