"""Every golden case of Qwen-VL through the whole HTTP walk."""

import json
import shutil

import jsonschema_rs
import pytest
from openai import BadRequestError

from tests.acceptance import guide
from tests.acceptance.golden_walk import Walk, check_together, safe_answer
from tests.cases import QWEN_VL, read_cases

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

CASES = read_cases(QWEN_VL)
HOSTILE = [name for name in CASES if "special" in name]
NUMBERED_BY_TURN = [name for name, case in CASES.items() if case.facts["image_numbering"] == "turn"]
"""The prompt of one helper of the authors; over HTTP pictures are numbered through the whole conversation."""
HONEST = [name for name in CASES if name not in {*HOSTILE, *NUMBERED_BY_TURN}]


@pytest.fixture(scope="module")
def walk(fleet) -> Walk:
    return fleet.walk("qwen-vl-chat")


@pytest.mark.parametrize("name", HONEST)
def test_case_answers_as_the_authors_code_does(walk, name):
    case = CASES[name]

    completion = walk.ask(case)

    assert completion.choices[0].message.content == case.facts["greedy_text"].removesuffix("<|im_end|>")
    assert completion.choices[0].finish_reason == case.facts["finish"]
    assert completion.usage.prompt_tokens == len(case.facts["input_ids"])
    assert completion.usage.completion_tokens == len(case.facts["greedy_ids"])


@pytest.mark.parametrize("name", HONEST)
def test_streamed_answer_is_the_plain_one(walk, name):
    facts = CASES[name].facts
    expected = (facts["greedy_text"].removesuffix("<|im_end|>"), facts["finish"], len(facts["greedy_ids"]))

    assert expected == walk.stream(CASES[name])


@pytest.mark.parametrize("name", HOSTILE)
def test_typed_control_tokens_stay_text(walk, name):
    """The authors' prompt is shorter, because there the typed tag becomes a single control token."""
    from tests.worker.models.golden import golden_model

    completion = walk.ask(CASES[name])

    seen = completion.usage.prompt_tokens, completion.choices[0].message.content
    assert seen == safe_answer(CASES[name], golden_model(None, QWEN_VL))
    assert completion.usage.prompt_tokens > len(CASES[name].facts["input_ids"])


def test_answer_matches_its_schema(walk):
    schema = {"type": "array", "items": {"enum": ["été", "冬天", 3]}, "minItems": 9, "maxItems": 9}
    response_format = {"type": "json_schema", "json_schema": {"name": "words", "schema": schema}}

    answer = walk.ask(CASES[HONEST[0]], response_format=response_format, max_tokens=300).choices[0]

    assert answer.finish_reason == "stop"
    assert jsonschema_rs.is_valid(schema, json.loads(answer.message.content))


def test_wish_that_the_model_has_no_choice_in_is_refused_by_name(walk):
    with pytest.raises(BadRequestError) as refusal:
        walk.ask(CASES["image"], extra_body={"mm_processor_kwargs": {"max_num": 2}})

    assert refusal.value.param == "mm_processor_kwargs.max_num"


def test_pictures_of_later_turns_are_numbered_on(walk):
    """What the authors' helper would number by turn is the other case's conversation, and gets its answer."""
    restarted, conversation = CASES["multi_turn_both_restart"], CASES["multi_turn_both"].facts
    assert [restarted.name] == NUMBERED_BY_TURN

    completion = walk.ask(restarted)

    assert completion.choices[0].message.content == conversation["greedy_text"].removesuffix("<|im_end|>")
    assert completion.usage.prompt_tokens == len(conversation["input_ids"])


def test_base_and_adapters_answer_together_as_the_authors_code_does(walk):
    check_together(walk, CASES)


@pytest.mark.parametrize("station", guide.stations("qwen-vl-chat"), ids=lambda station: station.field)
def test_every_form_and_a_streamed_second_turn_of_the_guide(walk, station):
    guide.check_every_form_and_a_streamed_second_turn(walk, station)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("station", guide.stations("qwen-vl-chat"), ids=lambda station: station.field)
def test_curl_asks_as_the_guide_does(walk, station):
    guide.check_curl(walk, station)
