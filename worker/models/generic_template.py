"""A checkpoint's chat template, run outside of this process."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InvalidRequest
from worker.prepare.template import Conversation, read_names, write

_VERBATIM = "{{ written }}"
"""A template of our own: processors read a prompt's text and its media where they render a template only."""
_NAMES_ONLY = {"image", "video", "audio"}


class Template:
    """What a processor's template makes of turns: a text first, then what the network takes."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)

    @property
    def is_text(self) -> bool:
        """Whether turns are texts, not lists of parts."""
        return self._processor is self._tokenizer

    @property
    def names(self) -> frozenset[str]:
        """The variables it reads, whoever sets them; none if it can't be understood, which is told when it is run."""
        try:
            return read_names(self._source())
        except InvalidRequest:
            return frozenset()

    def write(self, turns: Sequence[dict[str, Any]], variables: Mapping[str, Any], max_length: int) -> str:
        """Return the prompt's text; raises InvalidRequest if it refuses the turns, costs too much, or writes more."""
        source = self._source(has_tools="tools" in variables, has_clips=any(map(_shows_clip, turns)))
        named = {name: str(token) for name, token in self._tokenizer.special_tokens_map.items()}
        return write(Conversation(source, [_named(turn) for turn in turns], {**named, **variables}), max_length)

    def read(self, turns: Sequence[dict[str, Any]], text: str, **options: Any) -> dict[str, Any]:
        """Return what the network takes for the text and the turns' media; raises ValueError for what doesn't fit."""
        inputs = self._processor.apply_chat_template(
            turns,
            chat_template=_VERBATIM,
            written=text,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **options,
        )
        return dict(inputs)

    def _source(self, *, has_tools: bool = False, has_clips: bool = False) -> str:
        """Return the template that transformers would choose; SmolVLM's processor brings its own for clips."""
        own = getattr(sys.modules[type(self._processor).__module__], "DEFAULT_CHAT_TEMPLATE", None)
        if own and has_clips:
            return str(own)
        given = self._processor.chat_template
        if isinstance(given, str):
            return given
        named: str = given.get("tool_use" if has_tools else "default") or given["default"]
        return named


def _shows_clip(turn: Mapping[str, Any]) -> bool:
    content = turn["content"]
    return isinstance(content, list) and any(part["type"] == "video" for part in content)


def _named(turn: dict[str, Any]) -> dict[str, Any]:
    """Return the turn without the content of media, for which transformers sets such names itself."""
    content = turn["content"]
    if isinstance(content, str):
        return turn
    parts = [
        {key: f"<{type(value).__name__}>" if key in _NAMES_ONLY else value for key, value in part.items()}
        for part in content
    ]
    return turn | {"content": parts}
