"""What every model family offers the worker, whatever its checkpoint looks like."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from shared.job import AS_TRAINED, MediaKind, MediaPart, Message, ProcessorParams, SamplingParams
from shared.tools import ToolFormat
from worker.engine.prompt import Prompt
from worker.engine.runner import Runner

RawPrompt: TypeAlias = str | tuple[int, ...]
"""A prompt without turns: text, or token ids."""


class LoadError(Exception):
    """The model can't be loaded as asked; the message says why and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the gateway and the operator should know of a loaded model."""

    modalities: tuple[MediaKind, ...]
    max_model_len: int
    """Most tokens of prompt and answer together."""
    sampling: SamplingParams
    """The checkpoint's own generation defaults."""
    device: str
    """As `cpu` or `cuda:0 (NVIDIA H200)`."""
    max_num_seqs: int | None = None
    """Most sequences that run at once whatever the operator sets; None is any number."""
    system: str | None = None
    """What a conversation begins with where nobody says a system text; None if with none."""
    has_system: bool = True
    """Whether every prompt has a place for a system text; a foreign template may have none."""
    template_format: ToolFormat | None = None
    """How the checkpoint's own template tells of tools; None if it doesn't, or in no format that is read."""
    digest: str = ""
    """A hash of the checkpoint; empty if there is none."""


class Model(Protocol):
    """A loaded model: renders prompts and runs them."""

    facts: ModelFacts
    runner: Runner

    def prepare(
        self,
        messages: tuple[Message, ...],
        media: dict[MediaPart, bytes],
        processor: ProcessorParams = AS_TRAINED,
    ) -> Prompt:
        """Render the conversation as the model was trained on it, with its media decoded.

        Called from a pool thread, several at once. Raises InvalidMedia or InvalidRequest for what
        the client can mend.
        """
        ...

    def prepare_raw(self, prompt: RawPrompt, *, is_bare: bool = False) -> Prompt:
        """Return what is continued as it stands: text whose typed control tokens stay text, or token ids as they are.

        Text begins as the tokenizer begins prompts, unless it `is_bare`.
        """
        ...
