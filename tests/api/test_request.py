import json

import pytest

from api.schema.request import parse
from api.validation import processor_params
from shared.errors import InvalidRequest
from shared.fleet import WorkerInfo, WorkerState
from shared.job import MediaKind, ProcessorParams

SMALLEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def body(**fields) -> bytes:
    return json.dumps(SMALLEST | fields).encode()


def tool(**function) -> bytes:
    return body(tools=[{"type": "function", "function": {"name": "f"} | function}])


def content(*parts) -> bytes:
    return body(messages=[{"role": "user", "content": list(parts)}])


@pytest.mark.parametrize(
    ("raw", "param", "says"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b"[1]", None, "JSON object"),
        (b'{"model": "\xff"}', None, "not valid JSON"),
        (b'{"model": "\\ud800"}', None, "not valid JSON"),
        (b"[" * 100_000, None, "not valid JSON"),
        (b'{"model": "m", "messages": [], "temperature": NaN}', None, "not valid JSON"),
        (b'{"model": "m"}', "messages", "Missing field"),
        (body(tempreature=1), "tempreature", "Unknown field"),
        (body(temperature=2.1), "temperature", "less than or equal to 2"),
        (body(temperature="1"), "temperature", "valid number"),
        (body(temperature=True), "temperature", "valid number"),
        (b'{"model": "m", "messages": [], "temperature": 1e999}', "temperature", "finite"),
        (body(top_p=0), "top_p", "greater than 0"),
        (body(top_k=-2), "top_k", "greater than or equal to -1"),
        (body(seed=2**63), "seed", "less than or equal"),
        (body(seed=10**400), "seed", "less than or equal"),
        (body(max_tokens=0), "max_tokens", "greater than or equal to 1"),
        (body(max_tokens=2**80), "max_tokens", "less than or equal"),
        (body(stop=["a"] * 17), "stop", "at most 16"),
        (body(min_p=1.1), "min_p", "less than or equal to 1"),
        (body(repetition_penalty=0), "repetition_penalty", "greater than 0"),
        (body(presence_penalty=2.1), "presence_penalty", "less than or equal to 2"),
        (body(frequency_penalty=-3), "frequency_penalty", "greater than or equal to -2"),
        (body(logit_bias={"5": 101}), "logit_bias.5", "less than or equal to 100"),
        (body(logit_bias={"the": 1}), "logit_bias.the", "match"),
        (body(logit_bias={str(i): 1 for i in range(1025)}), "logit_bias", "at most 1024"),
        (body(n=0), "n", "greater than or equal to 1"),
        (body(n=True), "n", "valid integer"),
        (body(top_logprobs=21), "top_logprobs", "less than or equal to 20"),
        (body(logprobs=3), "logprobs", "valid boolean"),
        (body(min_tokens=-1), "min_tokens", "greater than or equal to 0"),
        (body(stop=["a", ""]), "stop[1]", "at least 1"),
        (body(messages="hi"), "messages", "valid list"),
        (body(messages=["hi"]), "messages[0]", "must be an object"),
        (body(messages=[{"role": "function", "content": "x"}]), "messages[0]", "'tool'"),
        (body(messages=[{"role": ["user"], "content": "x"}]), "messages[0]", "'role'"),
        (body(messages=[{"role": "tool", "content": "x"}]), "messages[0].tool_call_id", "Missing field"),
        (
            body(messages=[{"role": "user", "content": "", "tool_calls": [1]}]),
            "messages[0].tool_calls",
            "not supported",
        ),
        (body(messages=[{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls[0].id", "Missing field"),
        (
            body(messages=[{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom"}]}]),
            "messages[0].tool_calls[0].type",
            "'function'",
        ),
        (
            body(
                messages=[{"role": "tool", "tool_call_id": "1", "content": [{"type": "image_url", "image_url": "x"}]}]
            ),
            "messages[0].content[0].type",
            "'text'",
        ),
        (body(tools=[{"type": "custom"}]), "tools[0].type", "'function'"),
        (tool(name="a b"), "tools[0].function.name", "match"),
        (tool(name="a" * 65), "tools[0].function.name", "at most 64"),
        (tool(description="a" * 16_385), "tools[0].function.description", "at most 16384"),
        (tool(parameters=[]), "tools[0].function.parameters", "valid dictionary"),
        (tool(strict=1), "tools[0].function.strict", "valid boolean"),
        (body(tools=[{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]), "tools", "at most 128"),
        (body(tool_choice="any"), "tool_choice", "'required'"),
        (body(tool_choice={"type": "custom"}), "tool_choice", "'allowed_tools'"),
        (body(tool_choice={"type": "function", "function": {}}), "tool_choice.function.name", "Missing field"),
        (body(parallel_tool_calls="no"), "parallel_tool_calls", "valid boolean"),
        (body(messages=[{"role": "user", "content": 5}]), "messages[0].content", "string or a list"),
        (body(messages=[{"role": "user"}]), "messages[0].content", "Missing field"),
        (body(messages=[{"role": "user", "content": "", "weight": 1}]), "messages[0].weight", "Unknown field"),
        (body(messages=[{"role": "user", "content": "", "name": "Bo"}]), "messages[0].name", "not supported"),
        (content({"type": "input_audio"}), "messages[0].content[0].input_audio", "Missing field"),
        (
            content({"type": "input_audio", "input_audio": {"data": "", "format": "midi"}}),
            "messages[0].content[0].input_audio.format",
            "'wav', 'mp3'",
        ),
        (content({"type": "audio_url", "audio_url": {}}), "messages[0].content[0].audio_url.url", "Missing field"),
        (body(audios=[1]), "audios[0]", "valid string"),
        (content({"type": "x" * 10**6}), "messages[0].content[0]", "expected tags|xxx"),
        (content({"type": "text", "text": 5}), "messages[0].content[0].text", "valid string"),
        (
            content({"type": "text", "text": ""}, {"type": "image_url", "image_url": {"url": "x", "detail": "high"}}),
            "messages[0].content[1].image_url.detail",
            "auto",
        ),
        (content({"type": "image_url", "image_url": 5}), "messages[0].content[0].image_url", "must be an object"),
        (content({"type": "image_url", "image_url": {}}), "messages[0].content[0].image_url.url", "Missing field"),
        (body(images=[1]), "images[0]", "valid string"),
        (
            body(mm_processor_kwargs={"max_slice_nums": 0}),
            "mm_processor_kwargs.max_slice_nums",
            "greater than or equal",
        ),
        (body(mm_processor_kwargs={"fps": 0}), "mm_processor_kwargs.fps", "greater than 0"),
        (body(mm_processor_kwargs={"fps": 1000}), "mm_processor_kwargs.fps", "less than or equal to 240"),
        (body(mm_processor_kwargs={"max_pixels": 0}), "mm_processor_kwargs.max_pixels", "greater than or equal"),
        (body(mm_processor_kwargs={"size": {}}), "mm_processor_kwargs.size", "Unknown field"),
        (body(mm_processor_kwargs={"use_image_id": 0}), "mm_processor_kwargs.use_image_id", "valid boolean"),
        (body(**{"x" * 5000: 1}), "x" * 200, "Unknown field"),
    ],
)
def test_what_is_wrong_is_named(raw, param, says):
    with pytest.raises(InvalidRequest, match=says) as caught:
        parse(raw)

    assert caught.value.param == param
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("best_of", 2),
        ("best_of", True),
        ("length_penalty", 1.1),
        ("num_beams", 2),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
    ],
)
def test_field_that_cannot_be_honoured_is_refused_by_name(field, value):
    with pytest.raises(InvalidRequest, match=f"{field} is not supported") as caught:
        parse(body(**{field: value}))

    assert caught.value.param == field


def test_field_that_asks_for_nothing_is_accepted():
    asked = parse(
        body(
            n=None,
            best_of=1,
            length_penalty=1.0,
            num_beams=1,
            functions=[],
            function_call="none",
            user="someone",
        )
    )

    assert asked == parse(body(user="someone"))


def test_best_of_as_many_as_are_sent_is_all_of_them():
    assert parse(body(n=3, best_of=3)) == parse(body(n=3))


def test_own_answer_may_be_sent_back_as_it_came():
    answer = {"role": "assistant", "content": "hello", "refusal": None, "tool_calls": None, "annotations": []}

    asked = parse(body(messages=[*SMALLEST["messages"], answer, *SMALLEST["messages"]]))

    assert [message.role for message in asked.messages] == ["user", "assistant", "user"]


def test_bare_strings_are_wrapped():
    asked = parse(body(stop="\n", images="https://a/b.png", videos="https://a/b.mp4"))

    assert (asked.stop, asked.images, asked.videos) == (["\n"], ["https://a/b.png"], ["https://a/b.mp4"])


def worker(*modalities):
    about = dict.fromkeys(("id", "host", "version", "device", "model", "model_type"), "m")
    return WorkerInfo(**about, pid=1, state=WorkerState.READY, modalities=modalities)


@pytest.mark.parametrize(
    ("wishes", "param", "says"),
    [
        ({"num_frames": 4, "fps": 1}, "mm_processor_kwargs.fps", "num_frames and fps both choose"),
        ({"min_pixels": 5, "max_pixels": 4}, "mm_processor_kwargs.min_pixels", "min_pixels is 5 and max_pixels 4"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(wishes, param, says):
    with pytest.raises(InvalidRequest, match=says) as caught:
        processor_params(parse(body(mm_processor_kwargs=wishes)), worker(MediaKind.VIDEO))

    assert caught.value.param == param


def test_wishes_reach_the_job():
    wishes = {"fps": 0.5, "max_pixels": 100_000, "min_pixels": 3, "max_num": 2}

    asked = processor_params(parse(body(mm_processor_kwargs=wishes)), worker(MediaKind.VIDEO))

    assert asked == ProcessorParams(**wishes)
