"""Every golden case through the family alone: what the reference gives is right."""

import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from tests.worker.models.golden import generate, sequence
from tests.worker.models.golden_audio import CASES, golden_audio_model
from worker.prepare.media import decode_audio


def is_hostile(case):
    """Where the original lets typed text become control tokens, which Baton does only when told to."""
    return "special" in case.name or "literal" in case.name


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@cache
def prepare(name):
    """The case's prompt with the original's ids, which hostile text has in the original only."""
    case = CASES[name]
    prompt = golden_audio_model(case.facts["adapter"]).prepare(*case.messages())
    return replace(prompt, token_ids=tuple(case.facts["input_ids"]))


@cache
def answers(adapter):
    """All of a model's cases in one batch: what is right alone is right in company."""
    cases = [case for case in CASES.values() if case.facts["adapter"] == adapter]
    sequences = [sequence(prepare(case.name), case.name, case.facts["max_new_tokens"]) for case in cases]
    texts = generate(golden_audio_model(adapter).runner, *sequences)
    return {case.name: answer for case, *answer in zip(cases, sequences, texts, strict=True)}


def sampled(case, name, tensor):
    """The entries of a tensor that the case recorded, as `mel bands 0::8, frames 0::37` says."""
    steps = [int(step) for step in re.findall(r"0::(\d+)", case.facts["tensors"][name])]
    return tensor[tuple(slice(None, None, step) for step in steps)]


def test_prompt_is_the_original_one(case):
    model = golden_audio_model(case.facts["adapter"])
    messages, media = case.messages()
    counts = dict(zip(media, case.facts["audio_tokens"], strict=True))

    assert case.facts["input_ids"] == model.render(messages, counts, escapes=not is_hostile(case))
    assert is_hostile(case) == (case.facts["input_ids"] != list(model.prepare(messages, media).token_ids))


def test_signals_and_features_are_the_original_ones(case):
    prompt, expected = prepare(case.name), load_file(case.tensors_path)
    _, media = case.messages()
    network = golden_audio_model(case.facts["adapter"]).runner._model  # the only way to see features

    assert len(media) == len(prompt.features.get("num_frames", ()))
    for i, content in enumerate(media.values()):
        signal = torch.from_numpy(decode_audio(content, 16_000, "audios[0]"))
        mel, num_frames = prompt.features["input_features"][i], int(prompt.features["num_frames"][i])
        with torch.inference_mode():
            rows = network.hear(mel, num_frames)

        assert (len(signal), num_frames, len(rows)) == tuple(
            case.facts[name][i] for name in ("audio_samples_at_16k", "mel_frames_valid", "audio_tokens")
        )
        for name, tensor, atol in (
            (f"waveform_{i}", signal, 1e-6),
            (f"input_features_{i}", mel, 1e-5),
            (f"audio_embeds_{i}", rows, 1e-4),
        ):
            torch.testing.assert_close(sampled(case, name, tensor), expected[name], atol=atol, rtol=0)


def test_logits_are_the_original_ones(case):
    prompt, expected = prepare(case.name), load_file(case.tensors_path)
    network = golden_audio_model(case.facts["adapter"]).runner._model

    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([prompt.token_ids]), **prompt.features).logits[0]

    torch.testing.assert_close(logits[-1], expected["logits"], atol=1e-3, rtol=0)
    assert logits.argmax(-1).tolist() == expected["prompt_argmax"].tolist()


def test_greedy_answer_is_the_original_one(case):
    answer, text = answers(case.facts["adapter"])[case.name]

    assert case.facts["greedy_ids"] == answer.token_ids
    assert case.facts["greedy_text"] == text
    assert case.facts["finish"] == answer.finish_reason
