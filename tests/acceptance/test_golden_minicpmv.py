"""Every golden case of MiniCPM-V through the whole HTTP walk."""

import shutil
from collections.abc import Callable

import pytest
from openai import BadRequestError

from tests.acceptance import guide
from tests.acceptance.golden_walk import Walk, check_together, safe_answer
from tests.cases import MINICPMV, read_cases

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

CASES = {version: read_cases(folder) for version, folder in MINICPMV.items()}
EVERY = [(version, name) for version, cases in CASES.items() for name in cases]
HOSTILE = [(version, name) for version, name in EVERY if "special" in name]
HONEST = [named for named in EVERY if named not in HOSTILE]
ALTERED = [(v, n) for v, n in HONEST if CASES[v][n].facts["greedy_text_raw"] != CASES[v][n].facts["greedy_text"]]
"""Where the authors drop something of an answer."""


@pytest.fixture(scope="module")
def walks(fleet) -> Callable[[str], Walk]:
    """The way to a version; its worker is started when it is first asked for."""
    return lambda version: fleet.walk(MINICPMV[version].name)


def expected_of(version: str, name: str) -> dict:
    facts = CASES[version][name].facts
    return facts | facts.get("full_attention", {})


@pytest.mark.parametrize(("version", "name"), HONEST)
def test_case_answers_as_the_authors_code_does(walks, version, name):
    expected = expected_of(version, name)

    completion = walks(version).ask(CASES[version][name])

    assert completion.choices[0].message.content == expected["greedy_text"]
    assert completion.choices[0].finish_reason == ("stop" if expected["stopped"] else "length")
    assert completion.usage.prompt_tokens == len(expected["input_ids"])
    assert completion.usage.completion_tokens == len(expected["greedy_ids"])


@pytest.mark.parametrize(("version", "name"), ALTERED)
def test_streamed_answer_is_the_plain_one(walks, version, name):
    text, _, num_tokens = walks(version).stream(CASES[version][name])

    expected = expected_of(version, name)
    assert (text, num_tokens) == (expected["greedy_text"], len(expected["greedy_ids"]))


@pytest.mark.parametrize(("version", "name"), HOSTILE)
def test_typed_control_tokens_stay_text(walks, version, name):
    """The authors' prompt is shorter, because there the typed strings become single control tokens."""
    from tests.worker.models.minicpmv import golden_model

    completion = walks(version).ask(CASES[version][name])

    seen = completion.usage.prompt_tokens, completion.choices[0].message.content
    assert seen == safe_answer(CASES[version][name], golden_model(version))
    assert completion.usage.prompt_tokens > len(CASES[version][name].facts["input_ids"])


@pytest.mark.parametrize(
    ("version", "wish", "words"),
    [
        ("2.5", {"use_image_id": False}, "it knows max_pixels, max_slice_nums"),
        ("2.5", {"num_frames": 4}, "it knows max_pixels, max_slice_nums"),
        ("2.6", {"max_num": 4}, "it knows fps, max_pixels, max_slice_nums, num_frames, use_image_id"),
        ("2.6", {"max_slice_nums": 10}, "at most 9 slices"),
    ],
)
def test_wish_that_the_version_cannot_honour_is_refused_by_name(walks, version, wish, words):
    with pytest.raises(BadRequestError) as refusal:
        walks(version).client.chat.completions.create(
            model=MINICPMV[version].name,
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"mm_processor_kwargs": wish},
        )

    assert refusal.value.param == f"mm_processor_kwargs.{next(iter(wish))}"
    assert words in refusal.value.message


def test_first_version_takes_no_clips(walks):
    walk = walks("2.5")
    clip = {"type": "video_url", "video_url": {"url": f"{walk.media_url}/never_fetched.mp4"}}

    with pytest.raises(BadRequestError) as refusal:
        walk.client.chat.completions.create(model=walk.model, messages=[{"role": "user", "content": [clip]}])

    assert "takes text and image only, no video" in refusal.value.message
    assert refusal.value.param == "messages[0].content[0].video_url"


@pytest.mark.parametrize("version", MINICPMV)
def test_base_and_adapter_answer_together_as_the_authors_code_does(walks, version):
    check_together(walks(version), CASES[version])


STATIONS = [(version, station) for version in MINICPMV for station in guide.stations(MINICPMV[version].name)]
NAMES = [f"{version}-{station.field}" for version, station in STATIONS]


@pytest.mark.parametrize(("version", "station"), STATIONS, ids=NAMES)
def test_every_form_and_a_streamed_second_turn_of_the_guide(walks, version, station):
    guide.check_every_form_and_a_streamed_second_turn(walks(version), station)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize(("version", "station"), STATIONS, ids=NAMES)
def test_curl_asks_as_the_guide_does(walks, version, station):
    guide.check_curl(walks(version), station)
