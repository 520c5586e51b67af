"""Every golden case of Qwen-VL through the family alone: what the authors' code gives is right."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from transformers.cache_utils import DynamicCache

from tests.cases import QWEN_VL, read_cases
from tests.worker.models.golden import generate, golden_model, sequence

CASES = read_cases(QWEN_VL)


def is_hostile(case):
    return "special" in case.name


def numbers_by_turn(case):
    """Where pictures are numbered anew in each turn, which one helper of the authors does and Baton doesn't."""
    return case.facts["image_numbering"] == "turn"


def load(case):
    return golden_model(case.facts["adapter"], QWEN_VL)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@cache
def prepare(name):
    """The case's prompt with the original's ids."""
    case = CASES[name]
    prompt = load(case).prepare(*case.messages())
    return replace(prompt, token_ids=tuple(case.facts["input_ids"]))


@cache
def answers(adapter):
    """All of a model's cases in one batch: what is right alone is right in company."""
    cases = [case for case in CASES.values() if case.facts["adapter"] == adapter]
    sequences = [sequence(prepare(case.name), case.name, case.facts["max_new_tokens"]) for case in cases]
    texts = generate(golden_model(adapter, QWEN_VL).runner, *sequences)
    return {case.name: answer for case, *answer in zip(cases, sequences, texts, strict=True)}


def test_prompt_is_the_original_one(case):
    messages, media = case.messages()
    model = load(case)
    token_ids = model.render(messages, escapes=not is_hostile(case))

    if numbers_by_turn(case):  # the second picture is its turn's first
        differing = [pair for pair in zip(case.facts["input_ids"], token_ids, strict=True) if pair[0] != pair[1]]
        assert differing == [tuple(model.vocabulary.encode("12"))]
    else:
        assert case.facts["input_ids"] == token_ids
    assert is_hostile(case) or token_ids == list(model.prepare(messages, media).token_ids)


def test_pictures_and_logits_are_the_original_ones(case):
    prompt = prepare(case.name)
    expected = load_file(case.tensors_path)
    network = load(case).runner._model  # the only way to see logits
    rows = {name: torch.tensor([value]) for name, value in prompt.row_features.items()}

    with torch.inference_mode():
        logits = network(
            input_ids=torch.tensor([prompt.token_ids]),
            past_key_values=DynamicCache(),
            logits_to_keep=1,
            use_cache=True,
            **prompt.features,
            **rows,
        ).logits
        torch.testing.assert_close(logits[0, -1], expected["logits"], atol=1e-3, rtol=0)
        assert case.facts["ntk_alpha"] == prompt.row_features["ntk_alpha"]
        assert ("image_embeds" in expected) == bool(prompt.features)
        if prompt.features:
            pixels = prompt.features["pixel_values"]
            seen = network.see(pixels)
            torch.testing.assert_close(pixels[:, :, 5::23, 3::19], expected["pixel_values"], atol=1e-6, rtol=0)
            torch.testing.assert_close(seen[:, ::17], expected["image_embeds"], atol=1e-4, rtol=0)
            begins = [begin for begin, _ in case.facts["image_spans"]]
            assert begins == prompt.features["image_positions"][:: seen.shape[1]].tolist()


def test_greedy_answer_is_the_original_one(case):
    answer, text = answers(case.facts["adapter"])[case.name]

    assert case.facts["greedy_ids"] == answer.token_ids
    assert case.facts["greedy_text"].removesuffix("<|im_end|>") == text
    assert case.facts["finish"] == answer.finish_reason
