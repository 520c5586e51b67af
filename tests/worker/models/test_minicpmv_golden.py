"""Every golden case of MiniCPM-V through the family alone: what the authors' code gives is right."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from tests.worker.models.golden import generate, sequence
from tests.worker.models.minicpmv import CASES, golden_model, wishes
from worker.models.minicpmv_media import strip
from worker.models.minicpmv_network import spread

EVERY = [(version, name) for version, cases in CASES.items() for name in cases]


def is_hostile(case):
    """Where the authors let typed text become control tokens, which Baton does only when told to."""
    return "special" in case.name


def expected_answer(case):
    """The original's streaming chat sees every token of the prompt; its plain one masks exclamation marks."""
    return case.facts | case.facts.get("full_attention", {})


def load(version, name):
    return golden_model(version, CASES[version][name].facts["adapter"])


@cache
def prepare(version, name):
    """The case's prompt with the original's ids, which hostile text has in the original only."""
    case = CASES[version][name]
    prompt = load(version, name).prepare(*case.messages(), wishes(case))
    return replace(prompt, token_ids=tuple(case.facts["input_ids"]))


@cache
def answers(version, adapter):
    """All of a model's cases in one batch: what is right alone is right in company."""
    cases = [case for case in CASES[version].values() if case.facts["adapter"] == adapter]
    sequences = [sequence(prepare(version, c.name), c.name, c.facts["max_new_tokens"]) for c in cases]
    texts = generate(golden_model(version, adapter).runner, *sequences)
    return {case.name: answer for case, *answer in zip(cases, sequences, texts, strict=True)}


@pytest.fixture(params=EVERY, ids="-".join)
def golden(request):
    version, name = request.param
    return version, name, CASES[version][name]


def test_prompt_is_the_original_one(golden):
    version, name, case = golden
    model = load(version, name)
    messages, media = case.messages()
    grids = iter(case.facts.get("slice_grids_cols_rows", []))
    lengths = iter(map(len, case.facts.get("video_frame_indices", [])))
    pictures = {part: [next(grids) for _ in range(next(lengths) if part.kind == "video" else 1)] for part in media}
    numbered = case.facts.get("chat_options", {}).get("use_image_id", True)

    rendered = model.render(messages, pictures, numbered=numbered, escapes=not is_hostile(case))

    assert case.facts["input_ids"] == rendered
    if not is_hostile(case):
        assert case.facts["input_ids"] == list(model.prepare(messages, media, wishes(case)).token_ids)


def test_pictures_and_logits_are_the_original_ones(golden, monkeypatch):
    version, name, case = golden
    prompt = prepare(version, name)
    expected = load_file(case.tensors_path)
    network = load(version, name).runner._model  # the only way to see logits
    seen = []
    see = network.see
    monkeypatch.setattr(network, "see", lambda *tiles: seen.append(see(*tiles)) or seen[0])

    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([prompt.token_ids]), logits_to_keep=1, **prompt.features).logits[0, -1]

    if "full_attention" in case.facts:  # only its best logits are known
        assert [t for t, _ in expected_answer(case)["top5_next"]] == logits.topk(5).indices.tolist()
    else:
        torch.testing.assert_close(logits, expected["last_logits"], atol=3e-4, rtol=0)
    assert ("media_embeds" in expected) == bool(seen)
    for embeds in seen:
        stride = embeds.shape[-1] // expected["media_embeds"].shape[-1]
        torch.testing.assert_close(embeds[..., ::stride], expected["media_embeds"], atol=1e-4, rtol=0)


def test_pixels_are_the_original_ones(golden):
    version, name, case = golden
    prompt = prepare(version, name)
    if not prompt.features:
        assert "pixel_values" not in case.facts
        return
    expected = load_file(case.tensors_path)["pixel_values_sub"]
    grids = prompt.features["tile_grids"].tolist()

    strips = prompt.features["pixel_values"].split([14 * rows * columns for rows, columns in grids], dim=-1)

    assert grids == case.facts["tgt_sizes_rows_cols"]
    for laid_out, (rows, columns), sampled in zip(strips, grids, expected, strict=True):
        tile = laid_out.unflatten(2, (rows, columns, 14)).permute(0, 2, 1, 3, 4).flatten(3).flatten(1, 2)
        assert strip(tile, 14).equal(laid_out)
        flat = tile.flatten()
        places = torch.arange(len(sampled)) * len(flat) // len(sampled)
        torch.testing.assert_close(flat[places], sampled, atol=1e-6, rtol=0)


def test_patches_have_the_original_positions(golden):
    """Rounding otherwise moves whole rows to other positions, and shows in the logits only now and then."""
    version, name, case = golden
    if "tgt_sizes_rows_cols" not in case.facts:
        return
    grids = [(rows, columns) for rows, columns in case.facts["tgt_sizes_rows_cols"]]
    longest = max(rows * columns for rows, columns in grids)
    expected = load_file(case.tensors_path)["vision_position_ids"]

    places = torch.stack(list(load(version, name).runner._model._places(grids, longest)))

    assert (places[0] if version == "2.5" else places[: len(expected)]).equal(expected.to(places.dtype))
    assert spread(longest, 70).max() < 70


def test_greedy_answer_is_the_original_one(golden):
    version, name, case = golden
    expected = expected_answer(case)

    answer, text = answers(version, case.facts["adapter"])[name]

    assert expected["greedy_ids"] == answer.token_ids
    assert expected["greedy_text"] == text
    assert ("stop" if expected["stopped"] else "length") == answer.finish_reason
