import json
from pathlib import Path
from typing import TypeVar

import pytest

from api.settings import ApiSettings
from baton.pinning import pins
from baton.settings import DeploySettings, environment
from shared.settings import Settings
from worker.settings import WorkerSettings

_Settings = TypeVar("_Settings", bound=Settings)


def test_children_read_what_deploy_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "baton.yaml"
    config.write_text(json.dumps({"api_key": "secret", "max_num_seqs": 3, "port": 1234, "use_hf": True}))
    arguments = [f"--config={config}", "--model_type=fake", "--fake-itl-ms=2.5", "--workers=2"]
    arguments.append(f"--allowed_local_media_path={tmp_path}")
    settings = DeploySettings.read(arguments).model_copy(update={"port": 4321})

    api = read_in(environment(settings, ApiSettings), ApiSettings, monkeypatch)
    worker = read_in(environment(settings, WorkerSettings), WorkerSettings, monkeypatch)

    assert api.port == 4321
    assert api.allowed_local_media_path == tmp_path
    assert api.api_key is not None
    assert api.api_key.get_secret_value() == "secret"
    assert (worker.model_type, worker.max_num_seqs, worker.fake_itl_ms, worker.use_hf) == ("fake", 3, 2.5, True)
    assert "BATON_API_KEY" not in environment(settings, WorkerSettings)


def read_in(variables: dict[str, str], reader: type[_Settings], monkeypatch: pytest.MonkeyPatch) -> _Settings:
    with monkeypatch.context() as patch:
        patch.delenv("BATON_CONFIG", raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        return reader.read([])


@pytest.mark.parametrize(
    ("visible", "num_workers", "pinned"),
    [
        ("2,3", None, ["2", "3"]),
        ("2,3", 3, ["2", "3", "2"]),
        ("5", 1, ["5"]),
        ("", 2, [None, None]),
        ("-1", None, [None]),
    ],
)
def test_workers_are_pinned_to_visible_gpus(
    visible: str, num_workers: int | None, pinned: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert [pin.get("CUDA_VISIBLE_DEVICES") for pin in pins(num_workers)] == pinned


def test_one_worker_serves_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")

    assert pins(None) == [{}]
