"""The golden Qwen2-Audio checkpoint, loaded once a session as a worker loads it."""

from functools import cache

import torch

from tests.cases import QWEN2_AUDIO, read_cases
from worker.models.registry import load_model
from worker.settings import WorkerSettings

torch.set_num_threads(1)  # the model is so small that threads only wait for each other
CASES = read_cases(QWEN2_AUDIO)


def load(**given):
    settings = WorkerSettings(**{"model_id_or_path": str(QWEN2_AUDIO / "checkpoint"), "max_num_seqs": 8} | given)
    return load_model(settings, report=lambda words: None)


@cache
def golden_audio_model(adapter=None):
    return load() if adapter is None else load(ckpt_dir=str(QWEN2_AUDIO / adapter), merge_lora=True)
