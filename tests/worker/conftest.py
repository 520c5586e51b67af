"""Tests of the worker import transformers in any order; its companions have to be settled first."""

from collections.abc import Iterator
from functools import cache

import pytest

import worker.models.companions  # noqa: F401
from baton.embedded import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """A Redis of their own: these tests count its commands and keys, and other tests' workers beat on."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="session")
def load_tiny(tmp_path_factory):
    """Build and load tiny checkpoints of native classes, each once a session."""
    from tests.worker.models import tiny
    from worker.models.registry import load_model
    from worker.settings import WorkerSettings

    @cache
    def load(name):
        directory = tiny.write_checkpoint(name, tmp_path_factory.mktemp(name))
        settings = WorkerSettings(
            model_type="generic",
            model_id_or_path=str(directory),
            max_num_seqs=4,
            max_model_len=tiny.SHORT.get(name),
        )
        return load_model(settings, report=lambda words: None)

    return load
