"""The golden InternVL2 checkpoint, loaded once a session as a worker loads it."""

from functools import cache

import torch

from shared.job import MediaPart, Message, Role, SamplingParams, TextPart
from tests.cases import INTERNVL2, read_cases
from worker.engine.engine import Engine
from worker.engine.sequence import Sequence
from worker.models.registry import load_model
from worker.settings import WorkerSettings

torch.set_num_threads(1)  # the model is so small that threads only wait for each other
CASES = read_cases(INTERNVL2)


def settings(**given):
    return WorkerSettings(**{"model_id_or_path": str(INTERNVL2 / "checkpoint"), "max_num_seqs": 8} | given)


@cache
def golden_model(adapter=None, folder=INTERNVL2):
    """The base, or one with an adapter merged into it."""
    tuned = {} if adapter is None else {"ckpt_dir": str(folder / adapter), "merge_lora": True}
    return load_model(settings(model_id_or_path=str(folder / "checkpoint"), **tuned), report=lambda words: None)


def generate(runner, *sequences, max_num_seqs=8):
    """Run the sequences to their ends in one batch; return each one's text."""
    engine = Engine(runner, max_num_seqs)
    for sequence in sequences:
        engine.add(sequence)
    texts = {sequence.id: "" for sequence in sequences}
    while engine.has_work:
        for output in engine.step():
            assert output.failure is None
            texts[output.sequence_id] += output.text
    return list(texts.values())


def sequence(prompt, name="it", max_tokens=12, token_ids=(), **sampling):
    return Sequence(name, prompt, SamplingParams(**sampling), max_tokens, token_ids)


def user(*parts):
    """One user's turn of texts and media parts."""
    return (Message(Role.USER, tuple(p if isinstance(p, MediaPart) else TextPart(p) for p in parts)),)
