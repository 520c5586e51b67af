"""The golden MiniCPM-V checkpoints, each loaded once a session as a worker loads it."""

from functools import cache

import torch

from shared.job import ProcessorParams
from tests.cases import MINICPMV, read_cases
from worker.models.registry import load_model
from worker.settings import WorkerSettings

torch.set_num_threads(1)  # the models are so small that threads only wait for each other
CASES = {version: read_cases(folder) for version, folder in MINICPMV.items()}


@cache
def golden_model(version, adapter=None):
    base = {"model_id_or_path": str(MINICPMV[version] / "checkpoint")}
    tuned = {} if adapter is None else {"ckpt_dir": str(MINICPMV[version] / adapter), "merge_lora": True}
    settings = WorkerSettings(**base, **tuned, max_num_seqs=8, max_model_len=2048)  # no case is longer
    return load_model(settings, report=lambda words: None)


def wishes(case):
    """What the case asked of the original's chat."""
    return ProcessorParams(**case.facts.get("chat_options", {}))
