"""Calls are found in an answer's text wherever it is cut; what isn't one stays text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.calls.message import whole_message
from api.calls.reply import Replies
from shared.events import FinishReason
from shared.tools import Calling, ToolFormat

HERMES, REACT, LLAMA, MISTRAL = ToolFormat
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
    LLAMA: (
        *("<|python_tag|>", "<|python", "\n", " ", "; ", ";", '{"name": ', '"weather"', '"never"', ', "parameters": '),
        *('{"city": "', "Paris", '\\"', "}", "{", '"', "}}", "Hello", "é", '"now"', ', "arguments": {}', '{"type": '),
        *('{"name": "now", "parameters": {}}', '"function", "name": ', '{"parameters": {"a": "}"}, "name": "now"}'),
    ),
    MISTRAL: (
        *("[TOOL_CALLS]", "[TOOL_", "[", "]", "\n", " ", ", ", '{"name": ', '"weather"', "never", ', "arguments": '),
        *('{"city": "', "Paris", '\\"', "}", "{", '"', "}}", "Hello", "é", "now", "weather", "[ARGS]", "[CALL_ID]a1"),
        *('[{"name": "now", "arguments": {}}', ', "id": "123456789"}', "[TOOL_CALLS]now[ARGS]{}", '{"arguments": {}, '),
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
        (LLAMA, "Hello; {you}.\n", "Hello; {you}.\n", []),
        (LLAMA, '{"name": "now", "parameters": {}}\n', "", [("now", "{}")]),
        (LLAMA, '\n<|python_tag|>{"name": "weather", "parameters": {"a": 1}}', "", [("weather", '{"a": 1}')]),
        (LLAMA, 'I look.\n<|python_tag|> {"name": "now", "parameters": {}}', "I look.", [("now", "{}")]),
        (
            LLAMA,
            '{"type": "function", "name": "now", "parameters": {}}; {"name": "weather", "arguments": {"a": ";"}};',
            "",
            [("now", "{}"), ("weather", '{"a": ";"}')],
        ),
        (LLAMA, '{"name": "now", "parameters": {}}\n{"name": "now"} Bye', "Bye", [("now", "{}"), ("now", "{}")]),
        (LLAMA, '{"parameters": {"a": "}"}, "name": "now"}', "", [("now", '{"a": "}"}')]),
        (LLAMA, '{"name": "now", "parameters": {}}; {"b": 1}', '; {"b": 1}', [("now", "{}")]),
        (LLAMA, '{"name": "now", "parameters": {"a": [', "", [("now", '{"a": [')]),
        (LLAMA, '{"name": "never", "parameters": {}}', '{"name": "never", "parameters": {}}', []),
        (LLAMA, 'So: {"name": "now", "parameters": {}}', 'So: {"name": "now", "parameters": {}}', []),
        (LLAMA, '{"answer": {"name": "now"}}', '{"answer": {"name": "now"}}', []),
        (LLAMA, "<|python_tag|>print(1)", "<|python_tag|>print(1)", []),
        (MISTRAL, "Hello [you].\n", "Hello [you].\n", []),
        (MISTRAL, '[TOOL_CALLS] [{"name": "now", "arguments": {}}]\n', "", [("now", "{}")]),
        (
            MISTRAL,
            'I look. [TOOL_CALLS][{"name": "now", "arguments": {"a": "]"}, "id": "abcdefghi"}, {"name": "weather"}]',
            "I look.",
            [("now", '{"a": "]"}'), ("weather", "{}")],
        ),
        (
            MISTRAL,
            '[TOOL_CALLS]now[ARGS]{"a": {}}[TOOL_CALLS] weather[CALL_ID]abcdefghi[ARGS]{} Bye',
            "Bye",
            [("now", '{"a": {}}'), ("weather", "{}")],
        ),
        (MISTRAL, '[TOOL_CALLS]now[ARGS]{"a": ', "", [("now", '{"a": ')]),
        (MISTRAL, '[TOOL_CALLS][{"arguments": {}, "name": "now"}]', "", [("now", "{}")]),
        (MISTRAL, "[TOOL_CALLS]never[ARGS]{}", "[TOOL_CALLS]never[ARGS]{}", []),
        (MISTRAL, '[TOOL_CALLS][{"name": "never"}]', '[TOOL_CALLS][{"name": "never"}]', []),
        (MISTRAL, '[{"name": "now", "arguments": {}}]', '[{"name": "now", "arguments": {}}]', []),
        (MISTRAL, "A list is [TOOL_CALLS] in my words", "A list is [TOOL_CALLS] in my words", []),
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


CALLS = {
    HERMES: '<tool_call>\n{"name": "weather", "arguments": {"city": "a}"}}\n</tool_call>\n',
    REACT: 'Thought: I look.\nAction: weather\nAction Input: {"city": "a}"}\n',
    LLAMA: '<|python_tag|>{"name": "weather", "parameters": {"city": "a}"}}; {"name": "now", "parameters": {}}',
    MISTRAL: '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "a}"}, "id": "1"}][TOOL_CALLS]now[ARGS]{}',
}


@pytest.mark.parametrize("form", ToolFormat)
def test_call_is_the_same_wherever_it_comes_in_two(form):
    text = CALLS[form]
    expected = whole(form, text)

    assert expected[1][0][1:] == ("weather", '{"city": "a}"}')
    for cut in range(len(text) + 1):
        assert streamed(form, [text[:cut], text[cut:]]) == expected


@pytest.mark.parametrize("form", [LLAMA, MISTRAL])
def test_arguments_of_other_formats_are_told_as_they_come(form):
    reader = replies(form)
    begin = {LLAMA: '{"name": "weather", "parameters": ', MISTRAL: "[TOOL_CALLS]weather[ARGS]"}[form]

    additions = [reader.read(0, part) for part in (begin, '{"ci', 'ty": "Pa', 'ris"', "}")]

    assert "".join(addition.content for addition in additions) == ""
    assert [call.arguments for addition in additions for call in addition.calls] == ['{"ci', 'ty": "Pa', 'ris"', "}"]


def test_answer_in_json_is_no_call_and_not_held_back():
    reader = replies(LLAMA)

    assert [reader.read(0, part).content for part in ('{"', "tem", 'perature"', ": 1")] == [
        *("", "", '{"temperature"', ": 1")
    ]


def test_calls_of_mistral_have_ids_that_its_templates_take():
    message = whole_message(replies(MISTRAL), 0, "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]now[ARGS]{}")

    first, second = (call.id for call in message.tool_calls)
    assert first != second
    assert all(len(one) == 9 and one.isalnum() for one in (first, second))


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
