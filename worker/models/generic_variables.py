"""What a request may tell a checkpoint's chat template beside the conversation: what it reads and nobody else sets."""

import inspect
from collections.abc import Mapping
from typing import Any

from shared.errors import InvalidRequest
from worker.models.generic_template import Template
from worker.models.generic_text import Escaper

_OURS = frozenset({"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"})
PARAM = "chat_template_kwargs"


def read_variables(processor: Any, tokenizer: Any, asked: Mapping[str, Any], escaper: Escaper) -> dict[str, Any]:
    """Return the variables, their text escaped as all text is.

    Raises InvalidRequest for one that the template can't be told.
    """
    free = _free_variables(processor, tokenizer) if asked else frozenset()
    for name in asked:
        if name not in free:
            known = ", ".join(sorted(free)) or "nothing"
            raise InvalidRequest(
                f"the model's template can't be told {name}; leave it out (it can be told {known})",
                param=f"{PARAM}.{name}",
            )
    return {
        name: escaper.escape(value, is_own=False) if isinstance(value, str) else value for name, value in asked.items()
    }


def _free_variables(processor: Any, tokenizer: Any) -> frozenset[str]:
    """Return what the template reads, without what we, its tokenizer and transformers tell it."""
    taken = _OURS | {*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, *tokenizer.special_tokens_map}
    parameters = inspect.signature(processor.apply_chat_template).parameters
    return Template(processor).names - taken - parameters.keys()
