"""Fields clients send that this version can't honour: accepted only where they change nothing."""

import json
from collections.abc import Mapping
from typing import Any

from shared.errors import InvalidRequest

REQUEST_FIELDS: Mapping[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "audio": (),
    "best_of": (1,),
    "continue_final_message": (False,),
    "early_stopping": (False,),
    "echo": (False,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "modalities": (["text"],),
    "moderation": (),
    "num_beams": (1,),
    "prediction": (),
    "prompt_cache_options": ({}, {"mode": "implicit"}),
    "prompt_cache_retention": ("in_memory",),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Field → the values that ask for nothing; null always does."""

MESSAGE_FIELDS: Mapping[str, tuple[object, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_calls": ([],),
}
"""The same for one message; an answer of ours may be sent back as it came."""

HONOURED = {"assistant": "tool_calls", "tool": "name"}
"""Role → which of these fields has a meaning there."""
REPLACEMENTS = {"functions": "tools", "function_call": "tool_choice or tool_calls"}
"""Deprecated field → the one that has taken its place."""


def neutral_fields(message: Mapping[str, Any]) -> Mapping[str, tuple[object, ...]]:
    """Return the fields that ask for nothing in this message."""
    honoured = HONOURED.get(str(message.get("role")), "")
    if message.get(honoured) in (None, []):
        return MESSAGE_FIELDS
    return {name: values for name, values in MESSAGE_FIELDS.items() if name != honoured}


def without_neutral(fields: dict[str, Any], known: Mapping[str, tuple[object, ...]], where: str = "") -> dict[str, Any]:
    """Return the fields that are left to be honoured; raise InvalidRequest for one that can't be."""
    kept = {}
    for name, value in fields.items():
        if name not in known:
            kept[name] = value
        elif value is not None and not any(type(value) is type(other) and value == other for other in known[name]):
            raise InvalidRequest(
                f"{where}{name} is not supported by this server{_way_out(name, known[name])}.", param=where + name
            )
    return kept


def _way_out(name: str, values: tuple[object, ...]) -> str:
    if name in REPLACEMENTS:
        return f"; send {REPLACEMENTS[name]} instead"
    return f"; leave it out or send {json.dumps(values[0])}" if values else "; leave it out"
