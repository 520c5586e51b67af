"""What a run of `baton bench` is told."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
from pydantic import AfterValidator, Field, SecretStr, model_validator

from baton.bench.quantity import Count, Limits, Pixels, Size, Span
from shared.settings import Named, Options

DEFAULT_CONCURRENCY = 8
DEFAULT_NUM_REQUESTS = 100
MAX_DISTINCT_BY_DEFAULT = 256


def _json_object(said: str) -> str:
    try:
        msgspec.json.decode(said, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"not a JSON object: {error}") from None
    return said


def _weights(named: dict[str, str]) -> dict[str, str]:
    if wrong := [weight for weight in named.values() if not weight.replace(".", "", 1).isdecimal()]:
        raise ValueError(f"{wrong[0]!r} is not a weight; they look like base=3 poet=1")
    return named


class BenchSettings(Options):
    """Load an OpenAI endpoint, Baton's or another one, and say how fast it answers."""

    aliases: ClassVar[dict[str, str]] = {"duration": "duration_s", "json": "json_file"}

    base_url: str | None = Field(None, description="Where the server is, as http://127.0.0.1:8000/v1.")
    host: str = Field("127.0.0.1", description="The same in two parts: host")
    port: int = Field(8000, ge=1, le=65535, description="and port.")
    api_key: SecretStr | None = Field(None, description="Bearer token.")
    model: str | None = Field(None, description="Model id; the server's only one if unset.")
    model_mix: Annotated[Named, AfterValidator(_weights)] = Field(
        {}, description="Several model ids (a base and its adapters) with their weights, as base=3 poet=1."
    )
    timeout_s: float = Field(600.0, gt=0, description="A request that takes longer is an error.")

    concurrency: int | None = Field(
        None,
        gt=0,
        description="Closed loop: so many clients, each asks again once answered (8 if no rate is set).",
    )
    request_rate: float | None = Field(
        None, gt=0, description="Open loop: so many requests per second, whether or not earlier ones were answered."
    )
    arrival: Literal["poisson", "constant"] = Field("poisson", description="How an open loop's requests are spaced.")
    num_requests: int | None = Field(None, gt=0, description="Requests to send (100 if no duration is set).")
    duration_s: float | None = Field(None, gt=0, description="Begin requests for so many seconds.")
    num_warmups: int = Field(4, ge=0, description="Requests sent at once beforehand, and not counted.")

    prompt_words: Count = Field(Span(64, 64), description="Random words of a prompt, as 64 or 32-128.")
    answer_tokens: Count = Field(Span(64, 64), description="Most tokens of an answer (max_tokens), as 64 or 32-128.")
    prefix_words: int = Field(0, ge=0, description="Words of a system prompt that requests share.")
    num_prefixes: int = Field(1, gt=0, description="Different shared system prompts.")
    num_turns: int = Field(1, gt=0, description="Requests of one conversation; each repeats what was said before.")
    images: int = Field(0, ge=0, description="Pictures in a prompt.")
    image_size: Pixels = Field(Size(448, 448), description="Their size.")
    image_format: Literal["jpeg", "png"] = Field("jpeg", description="Their format.")
    audios: int = Field(0, ge=0, description="Recordings in a prompt (WAV, 16 kHz).")
    audio_s: float = Field(5.0, gt=0, description="Their length in seconds.")
    videos: int = Field(0, ge=0, description="Clips in a prompt (MP4).")
    video_s: float = Field(4.0, gt=0, description="Their length in seconds.")
    video_size: Pixels = Field(Size(320, 240), description="Their size.")
    video_fps: int = Field(8, gt=0, description="Their frames per second.")
    num_distinct: int | None = Field(
        None, gt=0, description="Different conversations drawn; later ones repeat them (at most 256 if unset)."
    )
    seed: int = Field(0, description="The same seed draws the same requests at the same times.")
    stream: bool = Field(True, description="Ask for streamed answers.")
    extra_body: Annotated[str, AfterValidator(_json_object)] = Field(
        "{}", description="JSON object that is added to each request, as '{\"ignore_eos\": true}'."
    )

    goodput: Limits = Field(
        {}, description="Count the requests within these limits in ms, as ttft:500 itl:50 (also e2e; itl is the mean)."
    )
    json_file: Path | None = Field(None, description="Write the figures there as JSON too; - is stdout.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.concurrency and self.request_rate:
            raise ValueError("--concurrency and --request_rate are two kinds of load; set one of them")
        if self.model and self.model_mix:
            raise ValueError("--model names one model and --model_mix several; set one of them")
        if self.model_mix and not any(float(weight) for weight in self.model_mix.values()):
            raise ValueError("--model_mix needs a weight above 0")
        if not self.stream and self.goodput.keys() & {"ttft", "itl"}:
            raise ValueError("--goodput on ttft or itl needs streamed answers")
        if self.json_file is not None and not self.json_file.parent.is_dir():
            raise ValueError(f"--json: there is no directory {self.json_file.parent}")
        return self

    @property
    def max_requests(self) -> int | None:
        """How many requests to send; None is as many as the duration holds."""
        return DEFAULT_NUM_REQUESTS if self.num_requests is None and self.duration_s is None else self.num_requests

    @property
    def num_clients(self) -> int | None:
        """How many clients a closed loop has; None is an open loop."""
        return None if self.request_rate else self.concurrency or DEFAULT_CONCURRENCY

    @property
    def num_conversations(self) -> int:
        """How many conversations to draw."""
        if self.max_requests is None:
            return self.num_distinct or MAX_DISTINCT_BY_DEFAULT
        needed = -(-self.max_requests // self.num_turns)
        return min(needed, self.num_distinct or MAX_DISTINCT_BY_DEFAULT)
