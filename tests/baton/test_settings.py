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


ADAPTERS = {"a": "/x", "b-2": "out put=1"}


def test_adapters_reach_the_workers_of_a_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DeploySettings.read(["--model_type=fake", "--lora-modules", "a=/x", "b-2=out put=1"])

    assert read_in(environment(settings, WorkerSettings), WorkerSettings, monkeypatch).lora_modules == ADAPTERS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--lora_modules", "a=/x", "b-2=out put=1"],
        ["--lora_modules", "a=/x", "--lora_modules", "b-2=out put=1"],
        ["--lora_modules=a=/x", "--lora-modules=b-2=out put=1"],
    ],
)
def test_named_values_are_listed_or_repeated(arguments: list[str]) -> None:
    assert WorkerSettings.read(["--model_type=fake", *arguments]).lora_modules == ADAPTERS


@pytest.mark.parametrize("written", ['{"a": "/x", "b": "/y"}', '["a=/x", "b=/y"]', " a=/x  b=/y "])
def test_named_values_of_a_variable_and_a_file_are_the_same(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "baton.yaml"
    config.write_text(f"lora_modules: {written}\n")
    monkeypatch.setenv("BATON_CONFIG", str(config))
    from_file = WorkerSettings.read(["--model_type=fake"])
    monkeypatch.delenv("BATON_CONFIG")
    monkeypatch.setenv("BATON_LORA_MODULES", written)

    assert WorkerSettings.read(["--model_type=fake"]).lora_modules == from_file.lora_modules == {"a": "/x", "b": "/y"}


@pytest.mark.parametrize(
    ("arguments", "message"), [(["/x"], "'/x' is not of the form name=value"), (["a=/x", "a=/y"], "two of one name")]
)
def test_unnamed_value_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        WorkerSettings.read(["--model_type=fake", "--lora_modules", *arguments])

    assert f"--lora_modules: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--quant_method=bnb", "--quantization-bit=4", "--quant_bits=8"])
@pytest.mark.parametrize("settings", [WorkerSettings, DeploySettings])
def test_option_known_from_elsewhere_is_refused_with_what_to_say(
    settings: type[Settings], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings.read(["--model_type=fake", option])

    name = option.partition("=")[0].replace("-b", "_b")
    assert f"{name}: say it with --quantization bnb-int8, bnb-nf4 or torchao-int8" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("visible", "num_workers", "pinned"),
    [("2,3,5", None, ["2,3,5"]), ("2,3,5,7", 2, ["2,3", "5,7"]), ("2,3,5", 2, ["2", "3,5"]), ("", None, [None])],
)
def test_workers_of_a_spread_model_share_the_visible_gpus(
    visible: str, num_workers: int | None, pinned: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert [pin.get("CUDA_VISIBLE_DEVICES") for pin in pins(num_workers, is_spread=True)] == pinned


def test_one_worker_serves_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")

    assert pins(None) == [{}]
