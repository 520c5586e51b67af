"""Tools in prompts of models whose authors wrote no template for them, in every format and family."""

import json
from functools import cache

import pytest

from shared.catalogue import TOOL_FORMATS, Family
from shared.errors import InvalidRequest
from shared.job import ChatJob, Message, Role, SamplingParams, TextPart
from shared.tools import Call, Calling, Tool, ToolFormat
from tests.cases import INTERNVL2, MINICPMV, QWEN2_AUDIO, QWEN_VL, YI_VL
from tests.worker.models import tiny
from tests.worker.models.golden import golden_model
from worker.calls import introduction, react
from worker.calls.prompt import prepare
from worker.calls.wording import WORDINGS
from worker.settings import WorkerSettings

FAMILIES = {path.name: path for path in (INTERNVL2, *MINICPMV.values(), QWEN2_AUDIO, QWEN_VL, YI_VL)}
WEATHER = Tool("weather", "What the sky does.", '{"type": "object", "properties": {}}')
QUESTION = "Will it rain?"
HERMES = WORDINGS[ToolFormat.HERMES]


def said(role, text, **more):
    return Message(role, (TextPart(text),) if text else (), **more)


def asked(result="rain", about=WEATHER.description, arguments='{"city": "Paris"}'):
    messages = (
        said(Role.USER, "Hello"),
        said(Role.ASSISTANT, "Hi."),
        said(Role.USER, QUESTION),
        said(Role.ASSISTANT, "I look.", calls=(Call("1", "weather", arguments), Call("2", "now", "{}"))),
        said(Role.TOOL, result, call_id="2"),
        said(Role.TOOL, result, call_id="1"),
    )
    return messages, (Tool("weather", about, WEATHER.parameters), Tool("now"))


def job(messages, tools, form):
    names = tuple(tool.name for tool in tools)
    told = {"messages": messages, "tools": tools, "calling": Calling(form, names)}
    return ChatJob(id="j", model="m", gateway="g", sampling=SamplingParams(), created_s=0.0, deadline_s=9.0, **told)


@pytest.fixture(scope="module")
def models(load_tiny):
    @cache
    def load(name):
        return load_tiny(name) if name in tiny.FAMILIES else golden_model(folder=FAMILIES[name])

    return load


def written(model, form, *given):
    messages, tools = asked(*given)
    return prepare(model, job(messages, tools, form), messages, {})


def spelled(model, prompt):
    """The prompt's ids as text, control tokens spelled out."""
    if (vocabulary := getattr(model, "vocabulary", None)) is not None:
        return vocabulary.decode(prompt.token_ids)
    return model.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)


def controls(model, prompt):
    if (vocabulary := getattr(model, "vocabulary", None)) is not None:
        ids = {*vocabulary.control_ids.values()}
    else:
        ids = {model.tokenizer.convert_tokens_to_ids(token) for token in tiny.CONTROLS}
    return [token_id for token_id in prompt.token_ids if token_id in ids]


@pytest.mark.parametrize("form", ToolFormat)
@pytest.mark.parametrize("name", [*FAMILIES, "llama", "qwen25vl"])
def test_every_model_is_told_of_tools_and_nothing_about_them_is_a_control_token(models, name, form):
    model = models(name)
    honest = written(model, form)
    known = getattr(getattr(model, "vocabulary", None), "control_ids", None) or tiny.CONTROLS
    typed = "".join(token for token in known if token not in GROUNDING)
    hostile = written(model, form, typed, typed, json.dumps({typed: typed}))
    text = spelled(model, honest)

    assert controls(model, honest) == controls(model, hostile)
    for told in ("What the sky does.", QUESTION, "rain", '"city": "Paris"'):
        assert told in text
    assert text.index("What the sky does.") < text.index(QUESTION) < text.index('"city": "Paris"')


GROUNDING = {"<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"}
"""What Qwen-VL takes for grounding, whoever types it."""


@pytest.mark.parametrize("name", [*FAMILIES, "llama", "qwen25vl"])
def test_react_leaves_the_models_turn_open_and_ends_it_before_it_makes_results_up(models, name):
    prompt = written(models(name), ToolFormat.REACT)

    text = spelled(models(name), prompt)
    assert text.endswith("Action: now\nAction Input: {}\nObservation: rain\n")
    assert text.index("Action: weather") < text.index("Action: now")
    assert text.count("Question: Will it rain?") == 1
    assert "\nObservation:" in prompt.stop


@pytest.mark.parametrize("name", FAMILIES)
def test_tools_stand_behind_the_system_text_of_the_authors(models, name):
    model = models(name)

    text = spelled(model, written(model, ToolFormat.HERMES))

    begin = text.index("You can call functions.")
    assert model.facts.system is None or text[:begin].rstrip().endswith(model.facts.system.strip())
    assert text.index("<tools>") < text.index("Hello") < text.index('<tool_call>\n{"name": "weather"')
    assert text.count("<tool_response>\nrain\n</tool_response>") == 2


def test_results_and_the_next_question_are_one_turn():
    messages, tools = asked()

    told = introduction.write((*messages, said(Role.USER, "And now?")), tools, HERMES, "Be brief.", has_system=True)

    assert [message.role for message in told[3:]] == [Role.USER, Role.ASSISTANT, Role.USER]
    assert "".join(part.text for part in told[-1].parts).endswith("</tool_response>\nAnd now?")


def test_system_text_of_the_conversation_comes_first():
    messages, tools = asked()

    told = introduction.write((said(Role.SYSTEM, "Be rude."), *messages), tools, HERMES, "Be brief.", has_system=False)

    assert "".join(part.text for part in told[0].parts).startswith("Be rude.\n\nYou can call functions.")


@pytest.mark.parametrize(
    "write", [react.write, lambda m, tools: introduction.write(m, tools, HERMES, "Be brief.", has_system=True)]
)
def test_calls_of_the_past_are_told_without_tools(write):
    messages, _ = asked()

    told = write(messages, ())

    assert [message.role for message in told[:3]] == [Role.USER, Role.ASSISTANT, Role.USER]
    assert "".join(part.text for part in told[0].parts) == "Hello"
    assert "weather" in "".join(part.text for part in told[3].parts)


def test_tools_for_nobodys_question_are_refused():
    messages, tools = asked()

    with pytest.raises(InvalidRequest, match="no user message"):
        react.write(messages[3:], tools)


def test_every_format_is_told_by_its_own_example():
    messages, tools = asked()
    written = {form: introduction.write(messages, tools, WORDINGS[form], None, has_system=True) for form in WORDINGS}
    texts = {form: "\n".join(part.text for turn in told for part in turn.parts) for form, told in written.items()}

    assert {*WORDINGS} == {*ToolFormat} - {ToolFormat.REACT}
    assert '{"name": "weather", "parameters": {"city": "Paris"}}; {"name": "now"' in texts[ToolFormat.LLAMA3_JSON]
    assert '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}, ' in texts[ToolFormat.MISTRAL]
    assert '{"name": "<name>", "parameters": {...}}' in texts[ToolFormat.LLAMA3_JSON]


@pytest.mark.parametrize(
    ("parser", "family", "form"),
    [
        ("auto", Family.QWEN_VL, ToolFormat.REACT),
        ("auto", Family.GENERIC, ToolFormat.HERMES),
        ("react", Family.GENERIC, ToolFormat.REACT),
        ("llama3_json", Family.INTERNVL2, ToolFormat.LLAMA3_JSON),
        ("mistral", Family.GENERIC, ToolFormat.MISTRAL),
        ("none", Family.QWEN_VL, None),
    ],
)
def test_operator_may_choose_the_format_or_refuse_tools(parser, family, form):
    assert WorkerSettings(model_type="fake", tool_call_parser=parser).tool_format(family) is form


def test_format_of_a_checkpoints_own_template_goes_before_its_familys():
    auto, chosen = (WorkerSettings(model_type="fake", tool_call_parser=parser) for parser in ("auto", "hermes"))

    assert auto.tool_format(Family.GENERIC, ToolFormat.MISTRAL) is ToolFormat.MISTRAL
    assert chosen.tool_format(Family.GENERIC, ToolFormat.MISTRAL) is ToolFormat.HERMES


def test_every_family_has_a_format():
    assert {*TOOL_FORMATS} == {*Family}
