"""The Grafana board asks for nothing that no process tells."""

import json
import re
from pathlib import Path

from api.metrics import GatewayMetrics
from worker.engine.engine import EngineStats
from worker.engine.runner import MediaStats
from worker.metrics import WorkerMetrics

BOARD = Path(__file__).parents[2] / "deploy/grafana.json"
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"


def told() -> set[str]:
    worker = WorkerMetrics("model")
    worker.watch(lambda: 0, lambda: EngineStats(0, 0, 0, 0, 0, MediaStats()))
    registries = (GatewayMetrics().registry, worker.registry)
    return {name for registry in registries for family in registry.collect() for name in names(family)}


def names(family) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}[family.type]
    return {family.name + suffix for suffix in suffixes}


def test_board_and_documentation_name_what_is_told():
    asked = {name for target in re.findall(r'"expr": (".*")', BOARD.read_text()) for name in found(json.loads(target))}
    documented = {name for name in found(OPERATIONS.read_text()) if "{" not in name}

    assert len(asked) > 10
    assert asked <= told()
    assert {re.sub("_bucket$|_sum$|_count$", "", name) for name in told()} - documented <= {
        f"baton:request_{phase}_time_seconds" for phase in ("queue", "prepare", "prefill", "decode")
    }


def found(text: str) -> set[str]:
    return set(re.findall(r"baton:[a-z0-9_]*[a-z0-9]", text)) - {"baton:request"}
