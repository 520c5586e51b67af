"""What gateway and worker agree to do for one request: frozen, complete, every default resolved."""

from enum import StrEnum
from typing import NewType

import msgspec

from shared.progress import Progress
from shared.tools import Call, Calling, Tool

JobId = NewType("JobId", str)


class MediaKind(StrEnum):
    """What a media part is; a model type names the kinds it takes."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


class Role(StrEnum):
    """Who said a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """A function that was called; only its result is said."""


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """Text as the client typed it; it never becomes control tokens."""

    text: str


class MediaPart(msgspec.Struct, frozen=True, tag="media"):
    """A picture, clip or sound, by the content hash under which its bytes lie in Redis."""

    kind: MediaKind
    sha256: str
    param: str
    """Where the client wrote it, as `messages[0].content[1]`; errors about it name this place."""


Part = TextPart | MediaPart


class Message(msgspec.Struct, frozen=True):
    """One turn's contribution: its parts in the order they stand in the prompt."""

    role: Role
    parts: tuple[Part, ...]
    calls: tuple[Call, ...] = ()
    """What an assistant called after its words."""
    call_id: str = ""
    """Of the call that a tool answers."""


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen and when the answer ends."""

    temperature: float = 0.0
    """0 is greedy; above it divides the logits."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this share as likely as the likeliest; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Makes tokens of prompt and answer less likely, whatever their number; 1 changes nothing."""
    presence_penalty: float = 0.0
    """Taken from the logit of each token that the answer has already."""
    frequency_penalty: float = 0.0
    """The same, once for each time that the answer has it."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token id and what is added to its logit."""
    seed: int = 0
    """The draw for a token depends on (seed, position) only."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these strings."""
    max_tokens: int | None = None
    """Most tokens of the answer; None is what the context leaves."""
    min_tokens: int = 0
    """The answer doesn't end by itself before it has this many tokens."""
    ignore_eos: bool = False
    """Whether the answer goes on where the model would end it."""
    num_logprobs: int | None = None
    """Tell each token's log-probability, beside those of the likeliest ones at its place; None tells nothing."""
    grammar: str | None = None
    """What the answer's whole text must match, in llguidance's dialect of Lark; None is any text.

    Its rule `start` matches the answer; JSON schemas stand in it as `%json {...}`. Written by `api/grammar.py` only.
    """


class ProcessorParams(msgspec.Struct, frozen=True, kw_only=True):
    """How prompt and media are prepared where a request has a wish; None is the model's own way."""

    num_frames: int | None = None
    """Frames taken from each clip."""
    max_num: int | None = None
    """Most tiles of each picture, its thumbnail not counted (InternVL's name)."""
    max_slice_nums: int | None = None
    """Most slices of each picture or frame; 1 is never slicing (MiniCPM-V's name)."""
    use_image_id: bool | None = None
    """Whether pictures are numbered in the prompt (MiniCPM-V's name)."""
    fps: float | None = None
    """Frames taken from each second of a clip, as far as the model takes so many; never beside `num_frames`."""
    max_pixels: int | None = None
    """Most pixels of each picture or frame; a larger one is shrunk first."""
    min_pixels: int | None = None
    """Least pixels of each picture, for processors that enlarge smaller ones (Qwen2-VL's name)."""
    chat_template_kwargs: dict[str, bool | int | float | str] | None = None
    """Variables of the checkpoint's chat template, where the prompt is written by one."""


AS_TRAINED = ProcessorParams()
"""No wish: media are prepared as the model's authors prepare them."""


class Lookup(msgspec.Struct, frozen=True):
    """What is asked of a tokenizer instead of an answer."""

    is_bare: bool = False
    """Whether text begins without what the tokenizer puts in front of prompts."""


class ChatJob(msgspec.Struct, frozen=True, kw_only=True):
    """One chat completion, as it lies in the queue.

    Created by the gateway's validation, ended by exactly one terminal event.
    """

    id: JobId
    """Also the completion's id, arq's job id and the name of the job's log."""
    model: str
    """The base model whose queue the job waits in."""
    gateway: str
    """Id of the gateway process that listens for the events."""
    messages: tuple[Message, ...]
    sampling: SamplingParams
    n: int = 1
    """How many answers are generated, each with draws of its own."""
    processor: ProcessorParams = AS_TRAINED
    progress: Progress = Progress()
    """What the client has already; only a job queued again after Redis forgot it has any."""
    created_s: float
    """Unix time of acceptance."""
    deadline_s: float
    """Unix time after which nobody waits for the answer any more."""
    adapter: str | None = None
    """The adapter that answers, beside the base model; None is the base itself."""
    priority: int = 0
    """Lower is served earlier; among equals, first come, first served."""
    key_name: str = ""
    """Whose request it is: the name of the API key, never the key; empty where none is set."""
    traceparent: str | None = None
    """The W3C trace context of the request; None if nobody traces it."""
    log_ttl_s: int = 300
    """How long its events can still be read again once it has ended."""
    tools: tuple[Tool, ...] = ()
    """What the model may call."""
    calling: Calling | None = None
    """How calls are written in the prompt and read from the answer; None where there can be none."""
    prompt: str | tuple[int, ...] | None = None
    """What is to be continued as it stands, as text or as token ids; then there are no messages."""
    lookup: Lookup | None = None
    """Asks only which tokens the prompt has; None asks for an answer."""
    echoes: bool = False
    """Whether every choice begins with that prompt."""

    @property
    def lane(self) -> str:
        """The queue it waits in: its model's, or beside that the one of jobs that take no row of the engine."""
        return self.model if self.lookup is None else lookup_lane(self.model)

    @property
    def asked_model(self) -> str:
        """The id the client asked for."""
        return self.adapter or self.model


def lookup_lane(model: str) -> str:
    """Return the lane of a model's lookups."""
    return f"{model}#lookup"
