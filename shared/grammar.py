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

Time is not bounded closely: the 600th token of `s: s s | "a" | "b"` costs 106 ms (2026-11-22, one core of an AMD EPYC).
"""
