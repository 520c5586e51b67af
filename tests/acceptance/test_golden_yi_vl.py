"""Every golden case of Yi-VL through the whole HTTP walk."""

import shutil

import pytest
from openai import BadRequestError

from tests.acceptance import guide
from tests.acceptance.golden_walk import Walk, check_together, safe_answer
from tests.cases import YI_VL, read_cases

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

CASES = read_cases(YI_VL)
HOSTILE = [name for name in CASES if "special" in name]
HONEST = [name for name in CASES if name not in HOSTILE]


@pytest.fixture(scope="module")
def walk(fleet) -> Walk:
    return fleet.walk("yi-vl-6b-chat")


def reason(case):
    """The original tells its two ways to stop apart."""
    return "length" if case.facts["finish"] == "length" else "stop"


@pytest.mark.parametrize("name", HONEST)
def test_case_answers_as_the_authors_code_does(walk, name):
    case = CASES[name]

    completion = walk.ask(case)

    assert completion.choices[0].message.content == case.facts["greedy_text"]
    assert completion.choices[0].finish_reason == reason(case)
    assert completion.usage.prompt_tokens == case.facts["expanded_length"]
    assert completion.usage.completion_tokens == len(case.facts["greedy_ids"])


@pytest.mark.parametrize("name", HONEST)
def test_streamed_answer_is_the_plain_one(walk, name):
    case = CASES[name]

    assert (case.facts["greedy_text"], reason(case), len(case.facts["greedy_ids"])) == walk.stream(case)


@pytest.mark.parametrize("name", HOSTILE)
def test_typed_control_tokens_stay_text(walk, name):
    """The authors' prompt is shorter, because there the typed strings become single control tokens."""
    from tests.worker.models.golden import golden_model

    completion = walk.ask(CASES[name])

    seen = completion.usage.prompt_tokens, completion.choices[0].message.content
    assert seen == safe_answer(CASES[name], golden_model(None, YI_VL))
    assert completion.usage.prompt_tokens > CASES[name].facts["expanded_length"]


def test_wish_that_the_model_has_no_choice_in_is_refused_by_name(walk):
    with pytest.raises(BadRequestError) as refusal:
        walk.ask(CASES["image_photo"], extra_body={"mm_processor_kwargs": {"num_frames": 2}})

    assert refusal.value.param == "mm_processor_kwargs.num_frames"


def test_base_and_adapters_answer_together_as_the_authors_code_does(walk):
    check_together(walk, CASES)


@pytest.mark.parametrize("station", guide.stations("yi-vl-6b-chat"), ids=lambda station: station.field)
def test_every_form_and_a_streamed_second_turn_of_the_guide(walk, station):
    guide.check_every_form_and_a_streamed_second_turn(walk, station)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("station", guide.stations("yi-vl-6b-chat"), ids=lambda station: station.field)
def test_curl_asks_as_the_guide_does(walk, station):
    guide.check_curl(walk, station)
