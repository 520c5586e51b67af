"""Every golden case through the family alone: what the authors' code gives is right."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from tests.worker.models.golden import CASES, generate, golden_model, sequence, settings
from worker.engine.torch_runner import TorchRunner
from worker.models.registry import load_model


def is_hostile(case):
    """Where the authors let typed text become control tokens, which Baton does only when told to."""
    return "special" in case.name


def is_beyond(case):
    """Whether the prompt is longer than the model's context."""
    return case.facts.get("beyond_max_position", False)


def load(case):
    model = golden_model(case.facts["adapter"])
    return replace(model, tiler=replace(model.tiler, num_segments=case.num_segments))


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@cache
def prepare(name):
    """The case's prompt with the original's ids, which hostile text has in the original only."""
    case = CASES[name]
    return replace(load(case).prepare(*case.messages()), token_ids=tuple(case.facts["input_ids"]))


@cache
def runner_of(adapter, is_long):
    """The model's own, or one for what a server refuses and the family can do all the same."""
    if not is_long:
        return golden_model(adapter).runner
    alone = load_model(settings(), report=lambda words: None).runner
    return TorchRunner(alone._model, max_num_seqs=1, max_model_len=2200)


@cache
def answers(adapter, is_long):
    """All of a model's cases in one batch: what is right alone is right in company."""
    runner = runner_of(adapter, is_long)
    cases = [c for c in CASES.values() if c.facts["adapter"] == adapter and is_beyond(c) == is_long]
    sequences = [sequence(prepare(c.name), c.name, c.facts["max_new_tokens"]) for c in cases]
    texts = generate(runner, *sequences)
    return {case.name: answer for case, *answer in zip(cases, sequences, texts, strict=True)}


def test_prompt_is_the_original_one(case):
    model = load(case)
    messages, media = case.messages()
    counts = {
        part: [1] * case.num_segments if "segments" in fact else [fact["tiles"]]
        for part, fact in zip(media, case.facts["media"], strict=True)
    }

    assert case.facts["input_ids"] == model.render(messages, counts, escapes=not is_hostile(case))
    assert is_hostile(case) or case.facts["input_ids"] == list(model.prepare(messages, media).token_ids)


def test_pictures_and_logits_are_the_original_ones(case):
    prompt = prepare(case.name)
    expected = load_file(case.tensors_path)
    network = runner_of(case.facts["adapter"], is_beyond(case))._model  # the only way to see logits

    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([prompt.token_ids]), logits_to_keep=1, **prompt.features).logits
        torch.testing.assert_close(logits[0, -1], expected["prompt_logits"], atol=5e-3, rtol=0)
        assert ("image_embeds" in expected) == bool(prompt.features)
        if prompt.features:
            pixels = prompt.features["pixel_values"]
            embeds = network.get_image_features(pixel_values=pixels).pooler_output.flatten(0, 1)
            torch.testing.assert_close(pixels[:, :, ::7, ::7], expected["pixel_values_sub"], atol=1e-5, rtol=0)
            torch.testing.assert_close(embeds, expected["image_embeds"], atol=1e-4, rtol=0)


def test_greedy_answer_is_the_original_one(case):
    answer, text = answers(case.facts["adapter"], is_beyond(case))[case.name]

    assert case.facts["greedy_ids"] == answer.token_ids
    assert case.facts["greedy_text"] == text
    assert case.facts["finish"] == answer.finish_reason
