"""Tools at the gateway, with OpenAI's client: what is agreed on, what is refused, and how calls are told."""

import json

import httpx2
import msgspec
import pytest
from openai import BadRequestError

from shared.job import Role, TextPart
from shared.tools import Call, Calling, Tool, ToolFormat
from tests.api.conftest import asking, connect, until
from tests.api.standin import StandIn

MODEL = "caller"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "What the sky does.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now", "strict": None}},
]
USER = {"role": "user", "content": "Will it rain?"}
PARTS = ("I look.\n<tool", '_call>\n{"name": "weather", "arg', 'uments": {"city": "Pa', 'ris"}}\n', "</tool_call>\n")
PA, PARIS = '{"city": "Pa', '{"city": "Paris"}'
AGAIN = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def called(*ids, content=None):
    calls = [{"id": i, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for i in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(call_id, content="rain", **more):
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


@pytest.fixture
async def caller(gateway, broker):
    standin = StandIn(broker, MODEL)
    standin.facts = msgspec.structs.replace(standin.facts, tool_format=ToolFormat.HERMES)
    await standin.beat()
    await broker.delete(f"queue:{MODEL}")
    return standin


@pytest.fixture
async def client(gateway, caller):
    async with connect(gateway) as opened:
        await until(lambda: _names(opened, MODEL))
        yield opened


@pytest.fixture
def ask(client):
    def create(*messages, **fields):
        return client.chat.completions.create(model=MODEL, messages=messages or [USER], tools=TOOLS, **fields)

    return create


async def test_call_is_streamed_name_first_and_arguments_as_they_come(ask, caller):
    async with asking(ask(stream=True)) as asked:
        job = await caller.take()
        for part in (*PARTS, AGAIN):
            await caller.say(job, part)
        await caller.finish(job)
        chunks = [chunk async for chunk in await asked]

    choices = [chunk.choices[0] for chunk in chunks]
    calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
    assert "".join(choice.delta.content or "" for choice in choices) == "I look."
    assert [(c.index, c.type, c.function.name, c.function.arguments) for c in calls] == [
        (0, "function", "weather", '{"city": "Pa'),
        (0, None, None, 'ris"}'),
        (1, "function", "now", "{}"),
    ]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["tool_calls"]
    assert job.calling == Calling(ToolFormat.HERMES, ("weather", "now"))
    assert job.tools == (Tool("weather", "What the sky does.", json.dumps(SCHEMA)), Tool("now"))


async def test_plain_answer_is_the_sum_of_the_stream_to_the_ids_of_its_calls(ask, caller, gateway):
    async with asking(ask(n=2, logprobs=True)) as asked:
        job = await caller.take()
        await caller.say(job, *PARTS)
        await caller.say(job, *PARTS, AGAIN, index=1)
        await caller.finish_choice(job, 0)
        await caller.finish(job, index=1)
        answer = await asked

    summed = added_up(gateway, answer.id)
    assert [choice.message.content for choice in answer.choices] == ["I look."] * 2
    assert [choice.finish_reason for choice in answer.choices] == ["tool_calls"] * 2
    assert [[call.model_dump() for call in choice.message.tool_calls] for choice in answer.choices] == summed
    assert [len(calls) for calls in summed] == [1, 2]
    assert len({call["id"] for calls in summed for call in calls}) == 3


def added_up(gateway, completion_id, **headers):
    """The calls of each choice that a stream tells which is heard again, as OpenAI's clients add them up."""
    calls = {}
    url = f"{gateway.url}/v1/chat/completions/{completion_id}/events"
    for line in httpx2.get(url, headers=headers, timeout=20).text.splitlines():
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            for part in choice["delta"].get("tool_calls", ()):
                key = choice["index"], part["index"]
                call = calls.setdefault(key, {"id": "", "type": "function", "function": {"arguments": "", "name": ""}})
                call["id"] += part.get("id", "")
                call["function"]["name"] += part["function"].get("name", "")
                call["function"]["arguments"] += part["function"]["arguments"]
    return [[call for (choice, _), call in calls.items() if choice == index] for index in (0, 1)]


async def test_answer_of_calls_only_has_no_content(ask, caller):
    async with asking(ask()) as asked:
        await caller.answer(AGAIN)
        choice = (await asked).choices[0]

    assert choice.message.content is None
    assert [call.function.name for call in choice.message.tool_calls] == ["now"]


async def test_answer_without_a_call_is_as_if_there_were_no_tools(ask, caller):
    async with asking(ask()) as asked:
        await caller.answer("No ", "<tool_call> here")
        choice = (await asked).choices[0]

    assert (choice.message.content, choice.message.tool_calls) == ("No <tool_call> here", None)
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize(
    ("last_id", "heard"), [("1", ""), ("3", ""), ("4", '{"city": "Pa'), ("5", '{"city": "Paris"}')]
)
async def test_stream_goes_on_within_a_call_and_repeats_nothing(ask, caller, gateway, last_id, heard):
    async with asking(ask(stream=True)) as asked:
        job = await caller.take()
        await caller.say(job, *PARTS)
        await caller.finish(job)
        ends = [chunk.choices[0].finish_reason async for chunk in await asked]

    (rest, _) = added_up(gateway, job.id, **{"Last-Event-ID": last_id})

    assert heard + "".join(call["function"]["arguments"] for call in rest) == PARIS
    assert [bool(call["id"]) for call in rest] == [not heard] * len(rest)
    assert ends[-1] == "tool_calls"


async def test_result_of_a_call_is_the_next_turn_and_a_tag_in_it_is_text(ask, caller):
    said = [USER, called("a", "b", content="I look."), result("b", "<image>"), result("a", [TEXT], name="weather")]
    async with asking(ask(*said)) as asked:
        job = await caller.answer("It rains.")
        await asked

    _, assistant, second, first = job.messages
    assert assistant.calls == (Call("a", "weather", "{}"), Call("b", "weather", "{}"))
    assert assistant.parts == (TextPart("I look."),)
    assert (second.role, second.call_id, second.parts) == (Role.TOOL, "b", (TextPart("<image>"),))
    assert (first.role, first.call_id, first.parts) == (Role.TOOL, "a", (TextPart("x<img>y</img>"),))


TEXT = {"type": "text", "text": "x<img>y</img>"}


async def test_calls_of_the_past_need_no_tools(client, caller):
    said = [USER, called("a"), result("a")]
    async with asking(client.chat.completions.create(model=MODEL, messages=said)) as asked:
        job = await caller.answer(AGAIN)
        choice = (await asked).choices[0]

    assert job.calling == Calling(ToolFormat.HERMES)
    assert (choice.message.content, choice.finish_reason) == (AGAIN, "stop")


@pytest.mark.parametrize(
    ("choice", "names", "is_named"),
    [
        ("none", (), False),
        ("auto", ("weather", "now"), False),
        ("required", ("weather", "now"), False),
        ({"type": "function", "function": {"name": "now"}}, ("now",), True),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]},
            },
            ("now",),
            False,
        ),
    ],
)
async def test_choice_says_what_may_be_called(ask, caller, choice, names, is_named):
    async with asking(ask(tool_choice=choice)) as asked:
        job = await caller.answer(AGAIN)
        answer = (await asked).choices[0]

    assert tuple(tool.name for tool in job.tools) == names
    assert (answer.message.content == AGAIN) is (not names)
    assert answer.finish_reason == ("tool_calls" if names and not is_named else "stop")
    assert job.calling == (Calling(ToolFormat.HERMES, names, is_named) if names else None)


def function(**fields):
    return {"tools": [{"type": "function", "function": {"name": "f"} | fields}]}


def named(name):
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tools": TOOLS * 2}, "tools[2].function.name", "both named 'weather'"),
        (function(parameters={"type": "string"}), "tools[0].function.parameters", "must be 'object'"),
        (function(parameters={"properties": {}}), "tools[0].function.parameters", "must be 'object'"),
        (function(parameters={"type": "object", "a": "b" * 2**18}), "tools", "at most 262144"),
        ({"tool_choice": named("never")}, "tool_choice.function.name", "the tools are weather, now"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named("never")]}}},
            "tool_choice.allowed_tools.tools[0]",
            "the tools are",
        ),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tools": [], "tool_choice": named("now")}, "tool_choice.function.name", "the tools are none"),
        ({"functions": [{"name": "f"}]}, "functions", "send tools instead"),
        ({"function_call": {"name": "f"}}, "function_call", "send tool_choice"),
        ({"messages": [USER, {"role": "assistant"}, USER]}, "messages[1].content", "Missing field"),
        ({"messages": [USER, called("a")]}, "messages[1].role", "last message"),
        ({"messages": [USER, called("a"), USER]}, "messages[2]", "have no result"),
        ({"messages": [USER, called("a", "b"), result("a")]}, "messages", "The calls b have no result"),
        ({"messages": [USER, called("a"), result("b")]}, "messages[2].tool_call_id", "those that do: a"),
        (
            {"messages": [USER, called("a"), result("a"), result("a")]},
            "messages[3].tool_call_id",
            "those that do: none",
        ),
        ({"messages": [USER, called("a", "a"), result("a")]}, "messages[1].tool_calls[1].id", "each needs its own"),
        ({"messages": [result("a")]}, "messages[0].tool_call_id", "No call before"),
        ({"messages": [USER, called("a"), result("a", name="now")]}, "messages[2].name", "of 'weather'"),
    ],
)
async def test_what_is_wrong_with_tools_is_named(client, fields, param, says):
    asked = {"messages": [USER], "tools": TOOLS} | fields
    known = {name: asked.pop(name) for name in ("messages", "tools")}

    with pytest.raises(BadRequestError, match=says) as caught:
        await client.chat.completions.create(model=MODEL, **known, extra_body=asked)

    assert caught.value.param == param


async def test_number_that_json_cannot_hold_is_refused(gateway, client):
    schema = '{"type": "object", "maximum": 1e999}'
    tools = f'[{{"type": "function", "function": {{"name": "f", "parameters": {schema}}}}}]'
    body = f'{{"model": "{MODEL}", "messages": [{json.dumps(USER)}], "tools": {tools}}}'

    answer = httpx2.post(f"{gateway.url}/v1/chat/completions", content=body, timeout=20)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools[0].function.parameters")


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"tools": TOOLS}, "tools"), ({"messages": [USER, called("a"), result("a")]}, "messages")],
)
async def test_model_that_is_served_without_tools_refuses_them(gateway, broker, fields, param):
    await StandIn(broker, "silent").beat()
    async with connect(gateway) as client:
        await until(lambda: _names(client, "silent"))
        with pytest.raises(BadRequestError, match="served without tools") as caught:
            await client.chat.completions.create(**{"model": "silent", "messages": [USER]} | fields)

    assert caught.value.param == param


async def _names(client, name):
    return any(model.id == name for model in (await client.models.list()).data)
