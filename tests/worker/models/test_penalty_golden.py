"""The repetition penalty as the authors' code applies it: to all ids, or where it begins with embeddings to its own."""

import pytest

from tests.worker.models import golden_audio, minicpmv
from tests.worker.models.golden import generate, sequence

MINICPMV = [
    (version, name) for version in ("2.5", "2.6") for name in ("image_single", "image_grey", "image_long_prompt")
]
AUDIO = ["audio", "text_multi_turn", "two_audios_interleaved"]


def answer(model, prompt, num_tokens, penalty):
    """In company of a row without a penalty."""
    rows = [sequence(prompt, str(p), num_tokens, repetition_penalty=p) for p in (penalty, 1.0)]
    generate(model.runner, *rows)
    return [row.token_ids for row in rows]


@pytest.mark.parametrize(("version", "name"), MINICPMV)
def test_minicpmv_counts_the_answer_only(version, name):
    case = minicpmv.CASES[version][name]
    model = minicpmv.golden_model(version, None)
    prompt = model.prepare(*case.messages(), minicpmv.wishes(case))
    expected = case.facts["greedy_ids_repetition_penalty_1.05"]

    assert answer(model, prompt, case.facts["max_new_tokens"], 1.05) == [expected, case.facts["greedy_ids"]]
    assert expected != case.facts["greedy_ids"]


@pytest.mark.parametrize("name", AUDIO)
def test_qwen2_audio_counts_the_prompt_too(name):
    case = golden_audio.CASES[name]
    model = golden_audio.golden_audio_model(None)
    expected = case.facts["greedy_ids_repetition_penalty_1.1"]

    penalized, plain = answer(model, model.prepare(*case.messages()), case.facts["max_new_tokens"], 1.1)

    assert (penalized, plain) == (expected, case.facts["greedy_ids"])
    assert model.facts.sampling.repetition_penalty == 1.1
