"""Base and adapters of each golden model asked at once: one worker answers all of them in one batch."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cases import GOLDEN, read_cases

NUM_ROWS = 4
"""As many as a worker of the fleet decodes together."""
MODELS = ("qwen-vl-chat", "yi-vl-6b-chat", "minicpm-v-v2_5-chat", "minicpm-v-v2_6-chat", "qwen2-audio-7b-instruct")


@pytest.mark.parametrize("model", MODELS)
def test_base_and_adapters_answer_together_as_the_authors_code_does(fleet, model):
    cases = {name: case for name, case in read_cases(GOLDEN / model).items() if "special" not in name}
    tuned = [case for case in cases.values() if case.facts["adapter"]]
    base = [case for case in cases.values() if not case.facts["adapter"] and "adapter" not in case.name][: len(tuned)]
    mixed = [case for pair in zip(tuned, base, strict=True) for case in pair]
    walk = fleet.walk(model)

    with ThreadPoolExecutor(2 * NUM_ROWS) as pool:
        answers = list(pool.map(walk.ask, mixed))

    assert len({answer.model for answer in answers}) >= 2
    for case, answer in zip(mixed, answers, strict=True):
        assert answer.choices[0].message.content == case.facts["greedy_text"].removesuffix("<|im_end|>")
