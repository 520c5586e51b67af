"""Every golden case through the whole HTTP walk."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import BadRequestError

from tests.acceptance import guide
from tests.acceptance.conftest import MODEL
from tests.acceptance.golden_walk import Walk, safe_answer, with_urls
from tests.cases import INTERNVL2, read_cases

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

CASES = read_cases(INTERNVL2)
HOSTILE = [name for name in CASES if "special" in name]
BEYOND = [name for name, case in CASES.items() if case.facts.get("beyond_max_position")]
HONEST = [name for name in CASES if name not in {*HOSTILE, *BEYOND}]


def request_of(case, media_url: str) -> dict[str, object]:
    """The case as an OpenAI client sends it."""
    return {
        "model": case.facts["adapter"] or MODEL,
        "max_tokens": case.facts["max_new_tokens"],
        "temperature": 0,
        "extra_body": {"mm_processor_kwargs": {"num_frames": case.num_segments}},
        "messages": [with_urls(message, media_url) for message in case.facts["messages"]],
    }


@pytest.mark.parametrize("name", HONEST)
def test_case_answers_as_the_authors_code_does(client, media_url, name):
    case = CASES[name]

    completion = client.chat.completions.create(**request_of(case, media_url))

    assert completion.choices[0].message.content == case.facts["greedy_text"]
    assert completion.choices[0].finish_reason == case.facts["finish"]
    assert completion.usage.prompt_tokens == case.facts["prompt_tokens"]
    assert completion.usage.completion_tokens == len(case.facts["greedy_ids"])


def test_base_and_adapters_answer_together_as_the_authors_code_does(client, media_url):
    names = ["adapter_text", "text_only", "adapter_image", "image_photo", "adapter_all_image", "text_chinese"]

    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(
            pool.map(lambda name: client.chat.completions.create(**request_of(CASES[name], media_url)), names)
        )

    assert [CASES[name].facts["greedy_text"] for name in names] == [a.choices[0].message.content for a in answers]
    assert [CASES[name].facts["adapter"] or MODEL for name in names] == [answer.model for answer in answers]


@pytest.mark.parametrize("name", HONEST)
def test_streamed_answer_is_the_plain_one(client, media_url, name):
    case = CASES[name]

    chunks = list(
        client.chat.completions.create(
            **request_of(case, media_url), stream=True, stream_options={"include_usage": True}
        )
    )

    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(deltas) == case.facts["greedy_text"]
    assert chunks[-2].choices[0].finish_reason == case.facts["finish"]
    assert chunks[-1].usage.completion_tokens == len(case.facts["greedy_ids"])


@pytest.mark.parametrize("name", HOSTILE)
def test_typed_control_tokens_stay_text(client, media_url, name):
    """The authors' prompt is shorter, because there the typed strings become single control tokens."""
    from tests.worker.models.golden import golden_model

    completion = client.chat.completions.create(**request_of(CASES[name], media_url))

    seen = completion.usage.prompt_tokens, completion.choices[0].message.content
    assert seen == safe_answer(CASES[name], golden_model())
    assert completion.usage.prompt_tokens > CASES[name].facts["prompt_tokens"]


@pytest.mark.parametrize("name", BEYOND)
def test_prompt_beyond_the_context_is_refused_with_the_limit(client, media_url, name):
    with pytest.raises(BadRequestError) as refusal:
        client.chat.completions.create(**request_of(CASES[name], media_url))

    assert refusal.value.code == "context_length_exceeded"
    assert "2048" in refusal.value.message
    assert str(CASES[name].facts["prompt_tokens"]) in refusal.value.message


@pytest.fixture
def walk(stack, client, media_url):
    return Walk(stack, client, media_url, MODEL)


@pytest.mark.parametrize("station", guide.stations(MODEL), ids=lambda station: station.field)
def test_every_form_and_a_streamed_second_turn_of_the_guide(walk, station):
    guide.check_every_form_and_a_streamed_second_turn(walk, station)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("station", guide.stations(MODEL), ids=lambda station: station.field)
def test_curl_asks_as_the_guide_does(walk, station):
    guide.check_curl(walk, station)
