"""Every golden case of Yi-VL through the family alone: what the authors' code gives is right."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from tests.cases import YI_VL, read_cases
from tests.worker.models.golden import generate, golden_model, sequence

CASES = read_cases(YI_VL)
PICTURE = -200
"""What the original's ids have once for each picture."""


def is_hostile(case):
    return "special" in case.name


def load(case):
    return golden_model(case.facts["adapter"], YI_VL)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def original_ids(case):
    """The original's ids, with as many places for a picture as it has rows."""
    model = load(case)
    places = [model.vocabulary.control_ids["<|startoftext|>"]] * model.picture_length
    return [i for token_id in case.facts["input_ids"] for i in (places if token_id == PICTURE else [token_id])]


@cache
def prepare(name):
    """The case's prompt with the original's ids, which hostile text has in the original only."""
    case = CASES[name]
    prompt = load(case).prepare(*case.messages())
    if not is_hostile(case):
        return prompt
    token_ids = original_ids(case)
    features = dict(prompt.features)
    if features:
        begin = token_ids.index(load(case).vocabulary.control_ids["<|startoftext|>"])
        features["image_positions"] = torch.arange(begin, begin + load(case).picture_length)
    return replace(prompt, token_ids=tuple(token_ids), features=features)


@cache
def answers(adapter):
    """All of a model's cases in one batch: what is right alone is right in company."""
    cases = [case for case in CASES.values() if case.facts["adapter"] == adapter]
    sequences = [sequence(prepare(case.name), case.name, case.facts["max_new_tokens"]) for case in cases]
    texts = generate(golden_model(adapter, YI_VL).runner, *sequences)
    return {case.name: answer for case, *answer in zip(cases, sequences, texts, strict=True)}


def test_prompt_is_the_original_one(case):
    messages, media = case.messages()
    model = load(case)

    assert original_ids(case) == model.render(messages, escapes=not is_hostile(case))
    assert is_hostile(case) or original_ids(case) == list(model.prepare(messages, media).token_ids)
    assert case.facts["expanded_length"] == len(original_ids(case))


def test_pictures_and_logits_are_the_original_ones(case):
    prompt = prepare(case.name)
    expected = load_file(case.tensors_path)
    network = load(case).runner._model  # the only way to see logits

    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([prompt.token_ids]), logits_to_keep=1, **prompt.features).logits
        torch.testing.assert_close(logits[0, -1], expected["prompt_logits"], atol=5e-3, rtol=0)
        assert ("image_embeds" in expected) == bool(prompt.features)
        if prompt.features:
            pixels = prompt.features["pixel_values"]
            torch.testing.assert_close(pixels[:, :, ::7, ::7], expected["pixel_values_sub"], atol=1e-5, rtol=0)
            torch.testing.assert_close(network.see(pixels), expected["image_embeds"], atol=1e-4, rtol=0)


def test_greedy_answer_is_the_original_one(case):
    answer, text = answers(case.facts["adapter"])[case.name]

    assert case.facts["greedy_ids"] == answer.token_ids
    assert case.facts["greedy_text"] == text
    assert ("length" if case.facts["finish"] == "length" else "stop") == answer.finish_reason
