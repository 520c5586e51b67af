"""Calls are found in an answer's text wherever it is cut; what isn't one stays text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.calls.message import whole_message
from api.calls.reply import Replies
from shared.events import FinishReason
from shared.tools import Calling, ToolFormat

HERMES, REACT = ToolFormat
NAMES = ("weather", "now")
FRAGMENTS = {
    HERMES: (
        *("<tool_call>", "</tool_call>", "<tool_", "\n", " ", '{"name": ', '"weather"', '"never"', ', "arguments": '),
        *('{"city": "', "Paris", '\\"', "}", "{", '"', "}}", "<", '"now"', ', "parameters": {}', "Hello", "é"),
        *('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', '<tool_call>{"arguments": {"a": "<"}, '),
    ),
    REACT: (
        *(
            "Thought:",
            "Action:",
            "Action Input:",
            "Final Answer:",
            "\n",
            " ",
            "weather",
            "never",
            '{"city": "',
            "Paris",
        ),
        *('\\"', "}", "{", '"', "Act", "Hello", "é", "\nAction: now\nAction Input: {}", "Thought: hm\n"),
    ),
}


def replies(form, *, is_named=False):
    return Replies("chatcmpl-1", Calling(form, NAMES, is_named))


def streamed(form, parts):
    """What a client adds up."""
    reader, content, calls = replies(form), "", []
    for addition in (*(reader.read(0, part) for part in parts), reader.finish(0)):
        content += addition.content
        for call in addition.calls:
            if call.number == len(calls):
                assert call.id is not None
                calls.append((call.id, call.name, ""))
            else:
                assert (call.id, call.name, call.number) == (None, None, len(calls) - 1)
            calls[-1] = (*calls[-1][:2], calls[-1][2] + call.arguments)
    return content, calls


def whole(form, text):
    message = whole_message(replies(form), 0, text)
    calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    assert message.content is not None or calls
    return message.content or "", calls


@pytest.mark.parametrize("form", ToolFormat)
def test_wherever_a_text_is_cut_it_says_the_same(form):
    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.sampled_from(FRAGMENTS[form]), max_size=14), st.data())
    def check(fragments, data):
        text = "".join(fragments)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

        assert streamed(form, parts) == streamed(form, text) == whole(form, text)

    check()


@pytest.mark.parametrize(
    ("form", "text", "content", "calls"),
    [
        (HERMES, "Hello.\n", "Hello.\n", []),
        (HERMES, 'I see.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n', "I see.", [("now", "{}")]),
        (
            HERMES,
            '<tool_call>{"name": "weather", "arguments": {"a": "</tool_call>}"}}</tool_call>\n'
            '<tool_call>{"name": "now"}</tool_call>',
            "",
            [("weather", '{"a": "</tool_call>}"}'), ("now", "{}")],
        ),
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "now"}</tool_call>', "", [("now", '{"a": 1}')]),
        (HERMES, '<tool_call>{"name": "now", "parameters": "{}"}</tool_call>', "", [("now", "{}")]),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": [}}</tool_call>', "", [("now", '{"a": [}}')]),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": 1</tool_call>.', ".", [("now", '{"a": 1')]),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": "b', "", [("now", '{"a": "b')]),
        (HERMES, '<tool_call>{"name": "now", "arguments": {}} Bye', "Bye", [("now", "{}")]),
        (HERMES, 'Write <tool_call>{"name": ...}', 'Write <tool_call>{"name": ...}', []),
        (HERMES, '<tool_call>{"name": "never", "arguments": {}}', '<tool_call>{"name": "never", "arguments": {}}', []),
        (HERMES, '<tool_call>{"name": ["now"]}</tool_call>', '<tool_call>{"name": ["now"]}</tool_call>', []),
        (REACT, "Hello.\n", "Hello.\n", []),
        (REACT, "Thought: I see.\nAction: now\nAction Input: {}\n", "I see.", [("now", "{}")]),
        (REACT, 'Action: weather\nAction Input: {"a": "}\n"}', "", [("weather", '{"a": "}\n"}')]),
        (REACT, "Thought: I know.\nFinal Answer: It rains.", "It rains.", []),
        (REACT, "Thought: Hm.", "Thought: Hm.", []),
        (REACT, "Action: never\nAction Input: {}", "Action: never\nAction Input: {}", []),
        (REACT, "So:\nAction: now\nAction Input: Paris, please\n", "So:", [("now", "Paris, please")]),
        (REACT, "Action: take a walk\n", "Action: take a walk\n", []),
    ],
)
def test_calls_and_only_calls_leave_the_text(form, text, content, calls):
    said, made = whole(form, text)

    assert (said, [(name, arguments) for _, name, arguments in made]) == (content, calls)


def test_arguments_are_told_as_they_come_and_text_as_soon_as_it_can_be_none():
    reader = replies(HERMES)
    parts = ["Look: <tool", '_call>{"name": "weather", "arguments": {"ci', 'ty": "Pa', 'ris"', "}", "}</tool_call>"]

    additions = [reader.read(0, part) for part in parts]

    assert [addition.content for addition in additions] == ["Look:", "", "", "", "", ""]
    assert [call.arguments for addition in additions for call in addition.calls] == ['{"ci', 'ty": "Pa', 'ris"', "}"]


def test_text_that_can_be_no_call_is_not_held_back():
    reader = replies(HERMES)

    assert [reader.read(0, part).content for part in ("a <tool", "s> b", " <tool_call>", "s c")] == [
        *("a", " <tools> b", "", " <tool_call>s c")
    ]


def test_ids_tell_calls_choices_and_answers_apart():
    text = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    made = [whole_message(Replies(job, Calling(HERMES, NAMES)), index, text * 2) for job in "ab" for index in (0, 1)]

    assert len({call.id for message in made for call in message.tool_calls}) == 8


@pytest.mark.parametrize(
    ("reason", "is_named", "expected"),
    [
        (FinishReason.STOP, False, "tool_calls"),
        (FinishReason.STOP, True, "stop"),
        (FinishReason.LENGTH, False, "length"),
    ],
)
def test_a_call_is_why_an_answer_ended_unless_it_was_cut_off_or_named(reason, is_named, expected):
    reader = replies(HERMES, is_named=is_named)
    reader.read(0, "words")
    assert reader.end_reason(0, reason) == reason

    reader.read(0, json.dumps({"name": "now", "arguments": {}}).join(("<tool_call>", "</tool_call>")))

    assert reader.end_reason(0, reason) == expected
