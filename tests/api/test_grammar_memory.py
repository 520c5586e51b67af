"""What the worst grammars that are accepted cost to compile: work and states are bounded, and so memory is."""

import random
import resource
import string
import subprocess
import sys

import psutil

from api.grammar import choice_grammar, context_free_grammar, json_grammar, regex_grammar
from shared.errors import InvalidRequest

MAX_BYTES = 128 * 2**20
"""What docs/structured.md says, of all of these one after the other, in a process that gives nothing back."""


def words(number, length):
    draw = random.Random(0)
    return ["".join(draw.choices(string.ascii_lowercase, k=length)) for _ in range(number)]


def keys(number, schema):
    return {"type": "object", "properties": {f"k{index}": schema for index in range(number)}}


def any_of(number, build):
    return {"anyOf": [build(index) for index in range(number)]}


def tree(depth):
    named = {f"a{i}": keys(8, {"$ref": f"#/$defs/a{i + 1}"}) for i in range(depth)}
    return {"$ref": "#/$defs/a0", "$defs": named | {f"a{depth}": {"type": "null"}}}


HOSTILE = (
    lambda: json_grammar({"enum": words(4000, 12)}, "p"),
    lambda: json_grammar(keys(15, keys(256, {})), "p"),
    lambda: json_grammar(keys(256, {"type": "string", "minLength": 10**5, "maxLength": 10**9}), "p"),
    lambda: json_grammar({"type": "array", "minItems": 10**9}, "p"),
    lambda: json_grammar(any_of(400, lambda i: {"type": "array", "maxItems": 10**6 + i, "items": keys(2, {})}), "p"),
    lambda: json_grammar(any_of(500, lambda i: {"type": "string", "pattern": f"^(.{{1,{300 + i}}}x){{1,300}}$"}), "p"),
    lambda: json_grammar(any_of(800, lambda i: {"type": "integer", "multipleOf": 625, "minimum": i}), "p"),
    lambda: json_grammar(any_of(200, lambda i: {"type": "string", "pattern": f"^.*[{i % 10}].{{{i}}}$"}), "p"),
    lambda: json_grammar(tree(30), "p"),
    lambda: regex_grammar("(a|b)*a(a|b){20}", "p"),
    lambda: regex_grammar("((((a{1,50}){1,50}){1,50}){1,50}){1,50}", "p"),
    lambda: regex_grammar(r"(?i)(\p{L}{1,100}\p{Lu}{1,100}[^\p{Ll}]){1000}", "p"),
    lambda: choice_grammar(words(1000, 32), "p"),
    lambda: context_free_grammar("start: A\nA: " + " & ".join(f"/(.*[{x}].{{20}}.*)/" for x in "abcdefgh"), "p"),
    lambda: context_free_grammar("start: a{1,1000000}\na: b{1,1000}\nb: c{1,1000}\nc: /x*/ | /y*/", "p"),
)


def compile_all():
    """Compile each, whether it is accepted or refused."""
    for build in HOSTILE:
        try:
            build()
        except InvalidRequest:
            continue


def test_worst_grammars_take_no_more_memory_than_is_said():
    run = [sys.executable, "-m", "tests.api.test_grammar_memory"]
    subprocess.run(run, check=True)


if __name__ == "__main__":
    json_grammar({}, "p")
    begun = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (begun + MAX_BYTES,) * 2)  # the allocation that goes beyond it aborts
    compile_all()
