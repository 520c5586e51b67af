"""What the trial of the largest request makes of each kind of model."""

import pytest
import torch

from tests.worker.models.golden import generate, sequence
from worker.engine.pool import overlaid
from worker.engine.torch_runner import TorchRunner
from worker.engine.trial import try_rows
from worker.models.generic_largest import Specimens
from worker.models.largest import Extent
from worker.prepare.limits import MediaLimits

NUM_TOKENS = 1023


def specimens(model):
    made = Specimens(model.processor, model.config, torch.float32, MediaLimits())
    return made.largest(Extent(NUM_TOKENS, MediaLimits().max_decoded_bytes))


@pytest.mark.parametrize(("name", "kinds"), [("qwen2vl", "image video"), ("onevision", "image video"), ("llama", "")])
def test_the_largest_prompts_of_a_checkpoint_are_full_of_each_kind_of_media(load_tiny, name, kinds):
    model = load_tiny(name)

    prompts = specimens(model)

    for kind, prompt in zip(kinds.split() or [None], prompts, strict=True):
        placeholder = getattr(model.config, f"{kind}_token_id", None)
        assert len(prompt.token_ids) == NUM_TOKENS
        assert kind is None or prompt.token_ids.count(placeholder) > NUM_TOKENS * 0.8


def test_no_medium_is_larger_than_the_largest(load_tiny):
    """The processor's own limit is 64 places of four patches each; a clip's is the same for all of its frames."""
    image, video = specimens(load_tiny("qwen2vl"))

    assert max(len(piece.places) for piece in image.pieces) == 64
    assert max(piece.features["video_grid_thw"].prod().item() for piece in video.pieces) >= 64 * 4


def test_recordings_that_are_encoded_at_once_are_many(load_tiny):
    (prompt,) = specimens(load_tiny("qwen2audio"))

    assert len(prompt.features["input_features"]) >= 8


@pytest.mark.parametrize("name", ["qwen2vl", "qwen35", "gemma3"])
def test_a_trial_changes_no_answer(load_tiny, name):
    model = load_tiny(name)
    prompt = specimens(model)[0]
    before, after = (sequence(prompt, temperature=0.7, max_tokens=4) for _ in range(2))
    generate(model.runner, before, max_num_seqs=4)

    tried = TorchRunner(model.runner._model, 3, NUM_TOKENS + 1, allocate=overlaid)
    try_rows(tried, specimens(model), num_rows=3, budget=256)
    fresh = TorchRunner(model.runner._model, 4, NUM_TOKENS + 20)
    generate(fresh, after, max_num_seqs=4)

    assert before.token_ids == after.token_ids
