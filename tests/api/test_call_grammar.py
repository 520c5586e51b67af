"""What an answer with tools must match, letter by letter, for each choice and format."""

from functools import cache

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from api.calls.grammar import calls_grammar
from api.tools import open_toolbox
from shared.errors import InvalidRequest
from shared.fleet import WorkerInfo, WorkerState
from shared.tools import ToolFormat
from tests.api.test_request import body, parse

HERMES, REACT, LLAMA, MISTRAL = ToolFormat
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": function} for function in ({"name": "f", "parameters": SCHEMA}, {"name": "g"})
]
STRICT = [{"type": "function", "function": TOOLS[0]["function"] | {"strict": True}}, TOOLS[1]]


def hermes(name, arguments):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def react(name, arguments):
    return f"Action: {name}\nAction Input: {arguments}"


def llama(name, arguments):
    return f'{{"name": "{name}", "parameters": {arguments}}}'


def listed(*calls, more=""):
    said = (f'{{"name": "{name}", "arguments": {arguments}{more}}}' for name, arguments in calls)
    return f"[TOOL_CALLS][{', '.join(said)}]"


def named(name, arguments):
    return f"[TOOL_CALLS]{name}[ARGS]{arguments}"


ONE, NONE, BAD = ("f", '{"x": 1}'), ("g", "{}"), ("f", '{"x": "1"}')
F, G, WRONG = hermes("f", '{"x": 1}'), hermes("g", "{}"), hermes("f", '{"x": "1"}')
ACTION, WRONG_ACTION = react("f", '{ "x":1 }'), react("f", '{"x": "1"}')
WORDS = "Look, <tool_call and Action: are words."


def toolbox(form, **fields):
    facts = {"id": "w", "host": "h", "pid": 1, "version": "0", "device": "cpu", "model": "m", "model_type": "fake"}
    worker = WorkerInfo(**facts, state=WorkerState.READY, tool_format=form)
    return open_toolbox(parse(body(**{"tools": TOOLS} | fields)), worker)


class Bytes:
    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"end")

    def __call__(self, text):
        return list(text)


@cache
def tokens():
    return LLTokenizer(TokenizerWrapper(Bytes()))


def matches(grammar, text):
    """Whether the whole text may be said, and nothing more has to be."""
    matcher = LLMatcher(tokens(), grammar)
    for token in (*text.encode(), Bytes.eos_token_id):
        mask = matcher.compute_bitmask()
        if not mask[token // 8] >> token % 8 & 1:
            return False
        matcher.consume_token(token)
    return True


@pytest.mark.parametrize(
    ("form", "fields", "said", "not_said"),
    [
        (
            HERMES,
            {"tool_choice": "required"},
            (F, G, f"{F}\n{G}", "\n".join([G] * 16)),
            (
                "",
                WORDS,
                WRONG,
                f"{WORDS}{F}",
                f"{F} bye",
                hermes("g", '{"x": 1}'),
                hermes("h", "{}"),
                "\n".join([G] * 17),
            ),
        ),
        (HERMES, {"tool_choice": "required", "parallel_tool_calls": False}, (F, G), ("", WRONG, f"{F}\n{G}")),
        (HERMES, {"tool_choice": {"type": "function", "function": {"name": "f"}}}, (F,), ("", G, WRONG, f"{F}\n{F}")),
        (
            HERMES,
            {"tools": STRICT},
            ("", WORDS, F, f"{WORDS}\n{F}", f"{F}\n{F} bye", hermes("g", '{"x": 1}')),
            (WRONG, f"{WORDS} {WRONG}", f"{F}\n{WRONG}", hermes("h", "{}")),
        ),
        (HERMES, {"parallel_tool_calls": False}, ("", WORDS, WRONG, f"{WORDS}{F}"), (f"{F}\n{F}", f"{F} bye")),
        (
            REACT,
            {"tool_choice": "required"},
            (ACTION, react("g", "{}")),
            ("", WORDS, WRONG_ACTION, f"{ACTION}\n{ACTION}"),
        ),
        (
            LLAMA,
            {"tool_choice": "required"},
            (llama(*ONE), f"{llama(*NONE)}; {llama(*ONE)}", "; ".join([llama(*NONE)] * 16)),
            ("", WORDS, llama(*BAD), f"{llama(*ONE)} bye", llama("h", "{}"), "; ".join([llama(*NONE)] * 17)),
        ),
        (
            LLAMA,
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            (llama(*ONE),),
            (llama(*NONE), f"{llama(*ONE)}; {llama(*ONE)}"),
        ),
        (
            LLAMA,
            {"tools": STRICT},
            ("", WORDS, "So {it} is.", llama(*ONE), f"So: <|python_tag|>{llama(*ONE)}; {llama(*NONE)}"),
            (llama(*BAD), f"<|python_tag|>{llama(*BAD)}", f" {llama(*BAD)}", f"{llama(*ONE)}; {llama(*BAD)}"),
        ),
        (LLAMA, {"parallel_tool_calls": False}, (WORDS, llama(*BAD)), (f"{llama(*NONE)}; {llama(*NONE)}",)),
        (
            MISTRAL,
            {"tool_choice": "required"},
            (
                *(listed(ONE), listed(ONE, NONE), listed(ONE, more=', "id": "a1b2c3d4e"'), listed(*[NONE] * 16)),
                *(named(*ONE), named(*ONE) + named(*NONE), listed(ONE).replace("[{", " [{")),
            ),
            ("", WORDS, listed(BAD), named(*BAD), f"{listed(ONE)} bye", listed(*[NONE] * 17), named(*NONE) * 17),
        ),
        (
            MISTRAL,
            {"tool_choice": "required", "parallel_tool_calls": False},
            (listed(ONE), named(*ONE)),
            (listed(ONE, NONE), named(*ONE) * 2),
        ),
        (
            MISTRAL,
            {"tools": STRICT},
            ("", WORDS, "[x]", listed(ONE), f"So: {named(*ONE)}{named(*NONE)} bye"),
            (listed(BAD), f"So: {named(*BAD)}", f"{named(*ONE)} {listed(BAD)}"),
        ),
        (MISTRAL, {"parallel_tool_calls": False}, (WORDS, listed(BAD)), (listed(NONE, NONE), f"{named(*NONE)} bye")),
        (REACT, {"tools": STRICT}, ("", WORDS, f"Thought: hm\n{ACTION}"), (WRONG_ACTION, f"hm\n{WRONG_ACTION}")),
    ],
)
def test_grammar_lets_say_what_was_asked_for_and_nothing_else(form, fields, said, not_said):
    given = toolbox(form, **fields)
    grammar = calls_grammar(given)

    assert given.is_bound
    assert [text for text in said if not matches(grammar, text)] == []
    assert [text for text in not_said if matches(grammar, text)] == []


@pytest.mark.parametrize("fields", [{}, {"tool_choice": "auto", "parallel_tool_calls": True}, {"tool_choice": "none"}])
def test_free_answer_costs_no_grammar(fields):
    assert not toolbox(HERMES, **fields).is_bound


def test_schema_that_cannot_be_followed_names_its_tool():
    tools = [TOOLS[1], {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]

    with pytest.raises(InvalidRequest, match="'not'") as caught:
        calls_grammar(toolbox(HERMES, tools=tools, tool_choice="required"))

    assert caught.value.param == "tools[1].function.parameters"
