"""A quantised model as its users meet it, with an adapter beside it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.golden_walk import Walk
from tests.cases import INTERNVL2, read_cases
from tests.worker.models import libraries

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the worker

MODEL, KIND = "internvl2-2b", "bnb-nf4"
CASES = read_cases(INTERNVL2)
NAMES = ("text_only", "image_photo", "adapter_text", "adapter_image")


@pytest.fixture(scope="module")
def walk(fleet) -> Walk:
    libraries.offer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(libraries.DIRECTORY), prepend=":")
        base = ("--max_num_seqs", "4", "--quantization", KIND)
        fleet.stack.start_internvl2(MODEL, *base, "--lora_modules", f"{MODEL}:adapter={INTERNVL2 / 'adapter'}")
    fleet.stack.wait_for_models(MODEL, f"{MODEL}:adapter")
    return Walk(fleet.stack, fleet.client, f"{fleet.media_url}/{MODEL}/media", MODEL)


def test_answers_are_the_quantised_models_own_and_always_the_same(walk):
    from tests.worker.models.golden import generate, sequence, settings
    from worker.models.registry import load_model
    from worker.models.tuned import read_tuned

    model = load_model(settings(quantization=KIND), report=lambda words: None)
    model.runner.adapters.put(1, read_tuned(str(INTERNVL2 / "adapter"), model.runner.adapters).changes)
    expected = []
    for name in NAMES:
        case = CASES[name]
        one = sequence(model.prepare(*case.messages()), max_tokens=case.facts["max_new_tokens"])
        one.adapter = 1 if case.facts["adapter"] else 0
        expected += generate(model.runner, one)

    with ThreadPoolExecutor() as pool:
        together = list(pool.map(walk.ask, [CASES[name] for name in NAMES] * 2))

    assert [answer.choices[0].message.content for answer in together] == expected * 2
    assert expected != [CASES[name].facts["greedy_text"] for name in NAMES]
