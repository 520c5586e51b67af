"""What a grammar may cost, at both ends: the gateway refuses what exceeds it, and the worker follows no further."""

from collections.abc import Mapping
from typing import Any

GRAMMAR_LIMITS: Mapping[str, Any] = {
    "initial_lexer_fuel": 500_000,
    "max_grammar_size": 100_000,
    "max_lexer_states": 20_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 50_000,
    "verbose_errors": False,
}
"""By the names of llguidance's `LLParserLimits`; a state takes 1 to 2 KiB.

They bound memory, and time only roughly, because what is found again isn't counted: a grammar of 13 KiB was seen to
work for 700 ms on one token. What that may cost others is bounded where it is measured, in `worker/engine/grammar.py`.
"""
