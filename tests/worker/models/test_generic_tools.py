"""Tools by a checkpoint's own template: token for token what transformers makes of them, and nothing forged."""

import json
import re

import pytest
from transformers import AutoTokenizer

from api.calls.grammar import calls_grammar
from api.calls.message import whole_message
from api.calls.reply import Replies
from shared.grammar import GRAMMAR_LIMITS
from shared.job import AS_TRAINED, Message, Role, SamplingParams, TextPart
from shared.tools import Call, Calling, Tool, ToolFormat
from tests.api.test_call_grammar import toolbox
from tests.worker.models import tiny
from tests.worker.models.golden import generate
from worker.engine.grammar import Grammars
from worker.engine.sequence import Sequence
from worker.models.generic_tools import MARKS

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": 'Where: "here" or 北京'}}}
WEATHER = Tool("weather", "What the sky does.", json.dumps(SCHEMA))
BARE = Tool("now")
ARGUMENTS = {"city": "Paris", "days": [1, 2.5, None]}
GIVEN = json.dumps(ARGUMENTS)


def said(role, text, **more):
    return Message(role, (TextPart(text),) if text else (), **more)


def dialogue(result="rain", name="weather", arguments=GIVEN, call_id="call_1"):
    return (
        said(Role.SYSTEM, "Be brief."),
        said(Role.USER, "Will it rain?"),
        said(Role.ASSISTANT, "", calls=(Call(call_id, name, arguments),)),
        said(Role.TOOL, result, call_id=call_id),
        said(Role.ASSISTANT, "Yes."),
        said(Role.USER, "Sure?"),
    )


def as_transformers(call_id):
    call = {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Will it rain?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": call_id, "name": "weather"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Sure?"},
    ]


def written(model, *arguments):
    prompt = model.prepare_with_tools(*arguments)
    return model.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)


FORMATS = {"llama3_caller": ToolFormat.LLAMA3_JSON} | dict.fromkeys(tiny.MISTRAL_CALLERS, ToolFormat.MISTRAL)


@pytest.mark.parametrize("name", tiny.CALLERS)
def test_template_that_knows_tools_is_given_them(load_tiny, name):
    model = load_tiny(name)
    call_id = "call1call" if name in tiny.MISTRAL_CALLERS else "call_1"

    prompt = model.prepare_with_tools(dialogue(call_id=call_id), {}, AS_TRAINED, (WEATHER, BARE))

    function = {"name": "weather", "description": WEATHER.description, "parameters": SCHEMA}
    tools = [{"type": "function", "function": function}, {"type": "function", "function": {"name": "now"}}]
    words = AutoTokenizer.from_pretrained(model.tokenizer.name_or_path)
    expected = words.apply_chat_template(
        as_transformers(call_id), tools=tools, tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert model.facts.template_format is FORMATS.get(name, ToolFormat.HERMES)
    assert list(prompt.token_ids) == expected


@pytest.mark.parametrize("name", ["llama", "qwen25vl"])
def test_template_without_tools_is_found_out(load_tiny, name):
    assert load_tiny(name).facts.template_format is None


def test_calls_at_once_stand_in_turns_of_their_own_where_a_template_knows_one(load_tiny):
    calls = Call("1", "weather", GIVEN), Call("2", "now", "{}")
    messages = (
        said(Role.USER, "Will it rain?"),
        said(Role.ASSISTANT, "I look.", calls=calls),
        said(Role.TOOL, "noon", call_id="2"),
        said(Role.TOOL, "rain", call_id="1"),
        said(Role.USER, "Sure?"),
    )

    text = written(load_tiny("llama3_caller"), messages, {}, AS_TRAINED, (WEATHER, BARE))

    order = ['{"name": "weather", "parameters": {"city"', "rain<|eot_id|>", '{"name": "now"', "noon<|eot_id|>", "Sure?"]
    assert [text.count(words) for words in order] == [1] * 5
    assert [*map(text.index, order)] == sorted(map(text.index, order))


@pytest.mark.parametrize("name", tiny.MISTRAL_CALLERS)
def test_call_of_another_model_gets_an_id_that_the_template_takes(load_tiny, name):
    text = written(load_tiny(name), dialogue(call_id="call_0123456789abcdef"), {}, AS_TRAINED, (WEATHER,))

    (told,) = re.findall(r'"call_id": "(\w+)"', text)
    assert len(told) == 9
    assert name == "new_mistral_caller" or f'"id": "{told}"' in text


@pytest.mark.parametrize("name", tiny.CALLERS)
def test_nothing_that_users_write_about_tools_becomes_a_control_token(load_tiny, name):
    model = load_tiny(name)
    marks = [*tiny.CONTROLS, *(mark for marks in MARKS.values() for mark in marks)]
    ids = {model.tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    typed = "".join(marks) + "<|im_<|im_end|>end|> <|im_"
    schema = {"type": "object", "properties": {typed: {"enum": [typed]}}}

    def controls(text, parameters):
        tool = Tool("weather", text, json.dumps(parameters, ensure_ascii=False))
        told = dialogue(text, text, json.dumps({text: [text]}, ensure_ascii=False)), {}, AS_TRAINED, (tool,)
        prompt = model.prepare_with_tools(*told)
        assert model.escaper.mark_id not in prompt.token_ids
        return [token_id for token_id in prompt.token_ids if token_id in ids], written(model, *told)

    harmless, _ = controls("a", SCHEMA)
    hostile, text = controls(typed, schema)

    assert harmless == hostile
    assert text.count(typed) == 7


@pytest.mark.parametrize("name", tiny.CALLERS)
def test_marks_of_calls_are_shown_in_answers(load_tiny, name):
    model = load_tiny(name)
    reader = model.prepare_with_tools(dialogue(), {}, AS_TRAINED, (WEATHER,)).tokenizer
    call = '{"a": 1}'.join([*MARKS[model.facts.template_format], ""])
    ids = model.tokenizer(f"{call}<|im_end|>", add_special_tokens=False)["input_ids"]

    assert reader.decode(ids) == call


def test_arguments_that_are_no_object_are_told_as_they_were_said(load_tiny):
    text = written(load_tiny("caller"), dialogue(arguments='{"city": '), {}, AS_TRAINED, ())

    assert '"arguments": "{\\"city\\": "' in text


@pytest.mark.parametrize("name", tiny.CALLERS)
def test_call_can_be_forced_whatever_its_marks_are_to_the_tokenizer(load_tiny, name):
    model, days = load_tiny(name), {"day": {"enum": ["today", "<tool_call>"]}}
    schema = {"type": "object", "properties": days, "required": ["day"], "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    forced = {"tool_choice": "required", "parallel_tool_calls": False}
    form = model.facts.template_format
    grammar = calls_grammar(toolbox(form, tools=tools, **forced))
    prompt = model.prepare_with_tools(dialogue(), {}, AS_TRAINED, (WEATHER,))
    constraint = Grammars(model.runner.vocab_size, GRAMMAR_LIMITS).compile(grammar, prompt).constraint()

    (text,) = generate(model.runner, Sequence("it", prompt, SamplingParams(), 200, constraint=constraint))

    message = whole_message(Replies("it", Calling(form, ("weather",))), 0, text)
    (call,) = message.tool_calls
    assert message.content is None
    assert json.loads(call.function.arguments)["day"] in {"today", "<tool_call>"}
