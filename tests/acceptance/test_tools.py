"""Tools through the whole walk: models with random weights call only because they must, and say only what they may."""

import json

import jsonschema_rs
import pytest
from openai import BadRequestError

from baton.client.inference import inference_client
from tests.acceptance.conftest import MODEL

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

REACT = "qwen-vl-chat"
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "unit": {"enum": ["°C", "<tool_call>", 'a "b"\n']},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 2},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
SCHEMAS = {"weather": WEATHER, "now": {"type": "object", "properties": {}, "additionalProperties": False}}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "What the sky does.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
USER = {"role": "user", "content": "Will it rain?"}
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.fixture(scope="module", params=[MODEL, REACT])
def ask(request, client, fleet):
    """Ask a model of each format."""
    asked = client
    if request.param == REACT:
        fleet.start(REACT)
        asked = fleet.client

    def create(*messages, **options):
        body = {"model": request.param, "messages": messages or [USER], "tools": TOOLS, "temperature": 0}
        return asked.chat.completions.create(**body | {"max_tokens": 400} | options)

    return create


def calls_of(message):
    """The calls of a message, checked against what they may be."""
    calls = message.tool_calls or []
    for call in calls:
        assert jsonschema_rs.is_valid(SCHEMAS[call.function.name], json.loads(call.function.arguments))
    return calls


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "seed": 3}])
def test_required_call_is_made_and_matches(ask, sampling):
    choice = ask(tool_choice="required", parallel_tool_calls=False, **sampling).choices[0]

    assert len(calls_of(choice.message)) == 1
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")


def test_named_function_is_called_and_nothing_else(ask):
    choice = ask(tool_choice=NAMED).choices[0]

    assert [call.function.name for call in calls_of(choice.message)] == ["weather"]
    assert (choice.message.content, choice.finish_reason) == (None, "stop")


def test_streamed_call_is_the_plain_one(ask):
    plain = ask(tool_choice=NAMED).choices[0].message.tool_calls[0]

    chunks = [chunk.choices[0] for chunk in ask(tool_choice=NAMED, stream=True)]
    parts = [call for choice in chunks for call in choice.delta.tool_calls or ()]

    assert [part.id is not None for part in parts] == [True] + [False] * (len(parts) - 1)
    assert (parts[0].type, parts[0].function.name) == ("function", plain.function.name)
    assert "".join(part.function.arguments for part in parts) == plain.function.arguments
    assert len(parts) > 3
    assert chunks[-1].finish_reason == "stop"


def test_result_is_told_and_another_call_can_be_forced(ask):
    first = ask(tool_choice=NAMED).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "rain <image> <|im_end|>"}

    second = ask(USER, first.model_dump(exclude_none=True), result, tool_choice="required", parallel_tool_calls=False)

    (call,) = calls_of(second.choices[0].message)
    assert call.id != first.tool_calls[0].id


def test_call_that_is_cut_off_is_told_as_far_as_it_came(ask):
    whole = ask(tool_choice=NAMED)
    short = ask(tool_choice=NAMED, max_tokens=whole.usage.completion_tokens - 20).choices[0]

    (call,) = short.message.tool_calls
    said = call.function.arguments.removesuffix("\ufffd")  # half a character
    assert whole.choices[0].message.tool_calls[0].function.arguments.startswith(said)
    assert short.finish_reason == "length"


def test_free_answer_is_as_without_the_readers(ask):
    choice = ask(max_tokens=20).choices[0]

    assert (choice.message.tool_calls, choice.finish_reason) == (None, "length")
    assert choice.message.content


def test_strict_tool_leaves_the_answer_free_until_it_calls(ask):
    tools = [{"type": "function", "function": TOOLS[0]["function"] | {"strict": True}}]

    choice = ask(tools=tools, max_tokens=20).choices[0]

    assert choice.message.content


def test_several_calls_may_be_forced(client):
    asked = {"messages": [USER], "tools": [TOOLS[1]], "tool_choice": "required", "temperature": 0}

    choice = client.chat.completions.create(model=MODEL, max_tokens=150, **asked).choices[0]

    first, second, *_ = choice.message.tool_calls
    assert json.loads(first.function.arguments) == json.loads(second.function.arguments) == {}
    assert first.id != second.id


def test_schema_that_cannot_be_followed_is_refused_by_name(client):
    tools = [TOOLS[1], {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]

    with pytest.raises(BadRequestError, match="'not'") as caught:
        client.chat.completions.create(model=MODEL, messages=[USER], tools=tools, tool_choice="required")

    assert caught.value.param == "tools[1].function.parameters"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"extra_body": {"ignore_eos": True}, "tool_choice": "required"}, "ignore_eos"),
    ],
)
def test_what_contradicts_calls_is_refused(client, options, param):
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[USER], tools=TOOLS, **options)

    assert caught.value.param == param


def test_client_of_ms_swift_is_told_of_calls(stack):
    answer = inference_client(MODEL, "Will it rain?", tools=TOOLS, tool_choice=NAMED, url=f"{stack.url}/v1")

    assert answer.choices[0].message.tool_calls[0].function.name == "weather"
