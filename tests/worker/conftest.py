"""Tests of the worker import transformers in any order; its companions have to be settled first."""

import worker.models.companions  # noqa: F401
