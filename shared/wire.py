"""Bytes on Redis: msgpack behind one version byte. Bytes of another version fail loudly."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from shared.events import JobEvent
from shared.fleet import WorkerInfo
from shared.job import ChatJob
from shared.kept import KeptResponse

_Value = TypeVar("_Value")

VERSION = b"\x03"
"""Raise it with every change that an older process would misread."""

_encoder = msgspec.msgpack.Encoder()
_job_decoder = msgspec.msgpack.Decoder(ChatJob)
_event_decoder: msgspec.msgpack.Decoder[JobEvent] = msgspec.msgpack.Decoder(JobEvent)
_events_decoder: msgspec.msgpack.Decoder[list[JobEvent]] = msgspec.msgpack.Decoder(list[JobEvent])
_worker_decoder = msgspec.msgpack.Decoder(WorkerInfo)
_response_decoder = msgspec.msgpack.Decoder(KeptResponse)
_envelope_decoder = msgspec.msgpack.Decoder(dict[str, Any])


class WireError(ValueError):
    """These bytes were written by another version of Baton, or are damaged."""


def encode(value: ChatJob | JobEvent | WorkerInfo | KeptResponse) -> bytes:
    """Encode one value; the decoder of its type reads it back."""
    return VERSION + _encoder.encode(value)


def decode_job(payload: bytes) -> ChatJob:
    """Decode a job, or raise WireError."""
    return _decode(_job_decoder, payload)


def decode_event(payload: bytes) -> JobEvent:
    """Decode one event as it lies in a job's log, or raise WireError."""
    return _decode(_event_decoder, payload)


def decode_worker(payload: bytes) -> WorkerInfo:
    """Decode a worker's heartbeat, or raise WireError."""
    return _decode(_worker_decoder, payload)


def decode_response(payload: bytes) -> KeptResponse:
    """Decode what is kept of a response, or raise WireError."""
    return _decode(_response_decoder, payload)


def decode_events(message: bytes) -> list[JobEvent]:
    """Decode one pub/sub message: the events of one engine step, or raise WireError."""
    return _decode(_events_decoder, message)


def join_events(encoded: Iterable[bytes]) -> bytes:
    """Join encoded events into one pub/sub message, without decoding them again.

    The publishing script does the same in Lua: version byte, msgpack array header, bodies.
    """
    bodies = [event[len(VERSION) :] for event in encoded]
    return VERSION + b"\xdc" + len(bodies).to_bytes(2, "big") + b"".join(bodies)


def encode_arq(job: dict[str, Any]) -> bytes:
    """arq's job envelope (function name, arguments, times); takes pickle's place."""
    return VERSION + _encoder.encode(job)


def decode_arq(payload: bytes) -> dict[str, Any]:
    """Decode arq's job envelope, or raise WireError."""
    return _decode(_envelope_decoder, payload)


def _decode(decoder: msgspec.msgpack.Decoder[_Value], payload: bytes) -> _Value:
    if payload[: len(VERSION)] != VERSION:
        raise WireError(f"wire version {payload[:1].hex() or 'none'}, this process speaks {VERSION.hex()}")
    try:
        return decoder.decode(memoryview(payload)[len(VERSION) :])
    except msgspec.MsgspecError as error:
        raise WireError(f"damaged message: {error}") from error
