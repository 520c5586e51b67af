"""What running answers wait for a long prompt, and what the second turn of a chat costs, in the engine alone.

Run: python -m benchmarks.reuse
"""

import time
from collections.abc import Sequence as Ids

import torch
import transformers

import worker.models.companions  # noqa: F401  before transformers imports what it needs
from shared.job import SamplingParams
from worker.engine.engine import Engine
from worker.engine.pieces import place
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence
from worker.engine.torch_runner import TorchRunner

IMAGE = 7
"""The placeholder's id."""
MAX_MODEL_LEN = 4096
NUM_RUNNING = 4
NUM_TILES = 4
TILE_LENGTH = 256
WHOLE = 10**6


class Silence:
    """Reads answers as nothing."""

    def decode(self, token_ids: Ids[int]) -> str:
        """Return nothing."""
        return ""

    def token_bytes(self, token_id: int) -> bytes:
        """Return nothing."""
        return b""


def build_network() -> torch.nn.Module:
    """Return an InternVL of 25 million random weights, whose pictures have the tiles of the real one."""
    text = transformers.Qwen2Config(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=4,
        vocab_size=32_000, max_position_embeddings=MAX_MODEL_LEN, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    vision = {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": [448, 448], "patch_size": [14, 14],
    }  # fmt: skip
    config = transformers.InternVLConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE, image_seq_length=TILE_LENGTH
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return transformers.InternVLForConditionalGeneration._from_config(config).eval().to(device)


def make_prompt(num_words: int, pixels: torch.Tensor | None = None, says: Ids[int] = ()) -> Prompt:
    """Return a prompt of a picture, if there is one, of random words, and of what is said after them."""
    num_tiles = 0 if pixels is None else len(pixels)
    words = torch.randint(100, 30_000, (num_words,), generator=torch.Generator().manual_seed(num_words)).tolist()
    token_ids = (1, *[IMAGE] * (num_tiles * TILE_LENGTH), *words, *says)
    tiles = [] if pixels is None else [{"pixel_values": tile} for tile in torch.split(pixels, 1)]
    return Prompt(
        token_ids=token_ids,
        tokenizer=Silence(),
        features={} if pixels is None else {"pixel_values": pixels},
        pieces=place("image", tiles, range(1, len(token_ids)), [TILE_LENGTH] * num_tiles),
    )


def submit(engine: Engine, name: str, prompt: Prompt, max_tokens: int) -> Sequence:
    """Put a sequence in line."""
    sequence = Sequence(name, prompt, SamplingParams(), max_tokens)
    engine.add(sequence)
    return sequence


def step_times_s(network: torch.nn.Module, budget: int) -> list[float]:
    """Times of the steps in which a long prompt with a picture is read beside running rows, sorted."""
    engine = Engine(TorchRunner(network, NUM_RUNNING + 1, MAX_MODEL_LEN), NUM_RUNNING + 1, budget)
    for index in range(NUM_RUNNING):
        submit(engine, f"{index}", make_prompt(50 + index), MAX_MODEL_LEN // 2)
    for _ in range(20):
        engine.step()
    late = submit(engine, "late", make_prompt(1500, torch.randn(NUM_TILES, 3, 448, 448)), 50)
    times = []
    while not late.is_finished:
        began_s = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - began_s)
    return sorted(times)


def second_turn_s(network: torch.nn.Module, *, reuses: bool) -> tuple[float, int]:
    """Return the time to the second turn's first token, and how many of its tokens were there already."""
    runner = TorchRunner(network, 2, MAX_MODEL_LEN, 2**28 if reuses else 0)
    engine = Engine(runner, 2, enable_prefix_caching=reuses)
    pixels = torch.randn(NUM_TILES, 3, 448, 448)
    first = submit(engine, "first", make_prompt(500, pixels), 30)
    while engine.has_work:
        engine.step()
    second = submit(engine, "second", make_prompt(500, pixels, [*first.token_ids, *range(200, 230)]), 2)
    began_s = time.perf_counter()
    while not second.token_ids:
        engine.step()
    return time.perf_counter() - began_s, second.num_cached_tokens


def main() -> None:
    """Print both tables."""
    network = build_network()
    whole = step_times_s(network, WHOLE)
    print(f"{'steps while a prompt of 2,500 tokens is read':46}{'p50 ms':>9}{'longest ms':>12}{'of whole':>10}")
    for budget in (WHOLE, 1024, 512, 256):
        times = whole if budget == WHOLE else step_times_s(network, budget)
        name = "whole" if budget == WHOLE else f"--max_num_batched_tokens {budget}"
        middle, longest = times[len(times) // 2], times[-1]
        print(f"{name:46}{middle * 1e3:9.1f}{longest * 1e3:12.1f}{longest / whole[-1]:10.2f}")
    fresh, _ = second_turn_s(network, reuses=False)
    reused, num_cached = second_turn_s(network, reuses=True)
    print(f"\nsecond turn's first token: {fresh * 1e3:.0f} ms read anew, {reused * 1e3:.0f} ms with")
    print(f"{num_cached} of its tokens there: {fresh / reused:.1f} times sooner")


if __name__ == "__main__":
    main()
