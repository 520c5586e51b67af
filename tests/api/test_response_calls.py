"""Responses that call functions: items, events, results, and numbers that hold at every gateway."""

import json

import msgspec
import pytest
from openai import BadRequestError
from openai.types.responses import Response

from api.mailbox import Mailbox
from shared import keys
from shared.events import TextDelta
from shared.job import JobId
from shared.tools import ToolFormat
from tests.api.conftest import asking, until
from tests.api.responding import ask, end, heard
from tests.api.standin import StandIn

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
CALLS = (
    "Let me ",
    "see.\n<tool_call>\n",
    '{"name": "weather", "arg',
    'uments": {"city": "Bonn"}}\n</tool_call>\n<tool_call>\n{"name": "weather", "arguments": {"city": ',
    '"Köln"}}\n</tool_call>',
)


CALLER = "jay"


@pytest.fixture
async def calling(broker, client, other):
    """A worker whose model may call."""
    worker = StandIn(broker, CALLER)
    worker.facts = msgspec.structs.replace(worker.facts, tool_format=ToolFormat.HERMES)
    await worker.beat()
    await broker.delete(keys.queue(CALLER))
    for gateway in (client, other):
        await until(lambda gateway=gateway: is_served(gateway))
    return worker


async def is_served(client) -> bool:
    return any(model.id == CALLER for model in (await client.models.list()).data)


async def call(client, worker, *words: str, **fields):
    async with asking(ask(client, model=CALLER, tools=[WEATHER], **fields)) as answer:
        job = await worker.take()
        await worker.say(job, *words)
        await end(worker, job)
        return job, await answer


async def test_calls_are_items_of_the_output(client, calling):
    job, response = await call(client, calling, *CALLS, tool_choice={"type": "function", "name": "weather"})

    Response.model_validate(json.loads(response.model_dump_json()))
    said, *calls = response.output
    assert (said.type, response.output_text.strip()) == ("message", "Let me see.")
    assert [(c.type, c.name, json.loads(c.arguments), c.status) for c in calls] == [
        ("function_call", "weather", {"city": city}, "completed") for city in ("Bonn", "Köln")
    ]
    assert [tool.name for tool in job.tools] == ["weather"]
    assert (response.tools[0].name, response.tool_choice.name) == ("weather", "weather")


async def test_result_of_a_call_goes_on_with_the_conversation(client, other, calling):
    first, response = await call(client, calling, *CALLS)
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": f"sun {n}"}
        for n, item in enumerate(response.output[1:])
    ]
    second, _ = await call(other, calling, "It shines.", input=results, previous_response_id=first.id)
    talk = [{"role": "user", "content": "你好"}, *[item.model_dump() for item in response.output], *results]
    third, _ = await call(client, calling, "It shines.", input=talk)

    assert [message.role.value for message in second.messages] == ["user", "assistant", "tool", "tool"]
    assert second.messages == third.messages
    assert [message.parts[0].text for message in second.messages[2:]] == ["sun 0", "sun 1"]
    listed = [item async for item in await client.responses.input_items.list(second.id, order="asc")]
    kinds = ["message", "message", *["function_call"] * 2, *["function_call_output"] * 2]
    assert [item.type for item in listed] == kinds


@pytest.mark.parametrize("background", [False, True])
async def test_any_gateway_goes_on_after_any_event_of_a_call(client, other, calling, background):
    async with asking(ask(client, model=CALLER, stream=True, background=background, tools=[WEATHER])) as answer:
        job = await calling.take()
        for word in CALLS:
            await calling.say(job, word)
        await end(calling, job)
        events = await heard(await answer)

    plain = await client.responses.retrieve(job.id)
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(events)))
    assert events[-1].response == plain
    said = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert said == "".join(item.arguments for item in plain.output[1:])
    for number in numbers:
        rest = await heard(await other.responses.retrieve(job.id, stream=True, starting_after=number))
        assert rest == events[number + 1 :]


async def test_clients_own_stream_accumulates_calls(client, calling):
    async def accumulate():
        async with client.responses.stream(model=CALLER, input="hi", tools=[WEATHER]) as stream:
            return await stream.get_final_response()

    async with asking(accumulate()) as answer:
        job = await calling.take()
        await calling.say(job, *CALLS)
        await end(calling, job)
        response = await answer

    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tools": [WEATHER | {"parameters": {"type": "string"}}]}, "tools[0].parameters"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "include": ["message.output_text.logprobs"]}, "include"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "input[0].call_id",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
            "input[0].role",
        ),
    ],
)
async def test_wrong_tools_are_refused_by_name(client, calling, fields, param):
    with pytest.raises(BadRequestError) as refusal:
        await ask(client, **{"model": CALLER, **fields})

    assert refusal.value.param == param


async def test_events_that_are_counted_are_never_joined(broker):
    async def requeue(progress):
        raise AssertionError

    mailboxes = [Mailbox(JobId("resp_1"), broker, requeue, joins=joins) for joins in (True, False)]
    for mailbox in mailboxes:
        for seq in range(1, 201):
            mailbox.put(TextDelta(job_id=JobId("resp_1"), attempt=1, seq=seq, text="a", token_ids=(1,)))

    joined, all_of_them = [await mailbox.take() for mailbox in mailboxes]
    assert len(joined) < 100
    assert [event.seq for event in all_of_them] == list(range(1, 201))
