"""Where weights come from: a directory, a hub, a hub that breaks off, and no hub at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.catalogue import MODEL_TYPES
from tests.cases import INTERNVL2
from tests.worker.hub import Hub
from worker.checkpoint import locate, own_adapters
from worker.fingerprint import digest_of, fingerprint
from worker.models.family import LoadError
from worker.settings import WorkerSettings

SCRIPT = """
import sys
from shared.catalogue import MODEL_TYPES
from worker.checkpoint import locate, own_adapters
from worker.models.family import LoadError
from worker.settings import WorkerSettings

settings = WorkerSettings.read(["--model_type", "internvl2-2b", *sys.argv[1:]])
try:
    print(locate(settings, MODEL_TYPES[settings.model_type], report=print).directory)
except LoadError as error:
    sys.exit(f"{error}")
"""
"""The hubs' libraries read their variables once, so each try is a process of its own."""


@pytest.fixture
def hub(tmp_path):
    repository = shutil.copytree(INTERNVL2 / "checkpoint", tmp_path / "repository")
    (repository / "modeling_internvl_chat.py").write_text("raise SystemExit")
    (repository / "chat_template.jinja").write_text("")
    with Hub(repository) as hub:
        yield hub


@pytest.fixture
def download(tmp_path):
    """Run `locate` in a process whose caches are empty at first and whose hubs are where we say."""

    def run(*arguments, huggingface="http://127.0.0.1:9"):
        variables = {
            "HF_HOME": str(tmp_path / "huggingface"),
            "HF_ENDPOINT": huggingface,
            "HF_HUB_DISABLE_XET": "1",
            "MODELSCOPE_CACHE": str(tmp_path / "modelscope"),
            "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9",
            "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
            "API_HTTP_CLIENT_MAX_RETRIES": "0",
        }
        command = [sys.executable, "-c", SCRIPT, *arguments]
        return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)

    return run


def test_download_brings_weights_and_configuration_but_no_code(hub, download):
    done = download("--use_hf", huggingface=hub.url)

    assert done.returncode == 0, done.stderr
    first, directory = done.stdout.strip().splitlines()
    assert first == "fetching OpenGVLab/InternVL2-2B from Hugging Face"
    original = {path.name for path in (INTERNVL2 / "checkpoint").iterdir()}
    assert {*os.listdir(directory)} == original | {"chat_template.jinja"}
    assert "%" in done.stderr  # a progress bar


def test_weights_known_by_the_other_hubs_id_are_found(download):
    failed = download("--model_type", "yi-vl-6b-chat", "--model_id_or_path", "01-ai/Yi-VL-6B", "--use_hf", "false")

    assert "ModelScope did not give 01ai/Yi-VL-6B" in failed.stderr


def test_download_that_breaks_off_is_resumed(hub, download):
    large = hub.directory / "model-00002-of-00002.safetensors"
    large.write_bytes(os.urandom(1 << 20) * 24)
    hub.num_cuts = 1

    done = download("--use_hf", huggingface=hub.url)

    assert done.returncode == 0, done.stderr
    assert hub.num_cuts == 0
    (start,) = (start for start in hub.ranges if start)
    assert start >= 10 << 20  # the client keeps what it has in chunks of that size
    fetched = Path(done.stdout.strip().splitlines()[-1]) / large.name
    assert fetched.read_bytes() == large.read_bytes()


def test_what_was_downloaded_serves_without_the_network(hub, download):
    first = download("--use_hf", huggingface=hub.url)

    again = download("--use_hf")

    assert again.returncode == 0, again.stderr
    assert first.stdout == again.stdout


def test_unknown_repository_is_one_clear_line(hub, download):
    failed = download("--use_hf", "--model", "OpenGVLab/Missing", huggingface=hub.url)

    assert failed.returncode == 1
    assert "Hugging Face did not give OpenGVLab/Missing" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "names", "advice"),
    [
        (["--use_hf"], "Hugging Face did not give OpenGVLab/InternVL2-2B", "the other hub (without --use_hf)"),
        ([], "ModelScope did not give OpenGVLab/InternVL2-2B", "the other hub (with --use_hf)"),
    ],
)
def test_unreachable_hub_is_one_clear_line_with_a_way_out(download, arguments, names, advice):
    failed = download(*arguments)

    last = failed.stderr.strip().splitlines()[-1]
    assert failed.returncode == 1
    assert names in last
    assert "name a local directory with --model_id_or_path" in last
    assert advice in last
    assert "Traceback" not in failed.stderr


def test_local_directory_never_touches_the_network(monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    found = locate(tuned(merge_lora=True), MODEL_TYPES["internvl2-2b"], report=pytest.fail)

    assert found.directory == INTERNVL2 / "checkpoint"
    assert found.adapter == INTERNVL2 / "adapter"


def tuned(**given):
    paths = {"model_id_or_path": str(INTERNVL2 / "checkpoint"), "ckpt_dir": str(INTERNVL2 / "adapter")}
    return WorkerSettings(**paths | given)


def test_tuned_directory_is_an_adapter_beside_its_base_unless_it_is_merged():
    found = locate(tuned(), MODEL_TYPES["internvl2-2b"], report=pytest.fail)

    assert (found.directory, found.adapter, found.system) == (INTERNVL2 / "checkpoint", None, None)
    assert own_adapters(tuned()) == {"default-lora": str(INTERNVL2 / "adapter")}
    assert own_adapters(tuned(merge_lora=True)) == {}


def test_adapters_are_named_with_absolute_paths(monkeypatch):
    monkeypatch.chdir(INTERNVL2)

    assert own_adapters(tuned(lora_modules="a=adapter b=adapter_all")) == {
        "default-lora": str(INTERNVL2 / "adapter"),
        "a": str(INTERNVL2 / "adapter"),
        "b": str(INTERNVL2 / "adapter_all"),
    }


@pytest.mark.parametrize(
    ("modules", "message"), [("default-lora=/x", "give that one of --lora_modules another name"), ("-=/x", "'-' can't")]
)
def test_adapter_that_cannot_have_its_name_is_refused(modules, message):
    with pytest.raises(LoadError, match=message):
        own_adapters(tuned(lora_modules=modules))


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "there is no --ckpt_dir"), ({"ckpt_dir": str(INTERNVL2 / "checkpoint")}, "is a full checkpoint already")],
)
def test_merging_without_a_lora_is_refused(given, message):
    settings = WorkerSettings(model_id_or_path=str(INTERNVL2 / "checkpoint"), merge_lora=True, **given)

    with pytest.raises(LoadError, match=message):
        locate(settings, MODEL_TYPES["internvl2-2b"], report=pytest.fail)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_id_or_path": "./nowhere"}, "neither a directory nor a hub id"),
        ({"model_id_or_path": "/nowhere/at/all"}, "neither a directory nor a hub id"),
        ({"model_id_or_path": str(INTERNVL2 / "adapter")}, "is a LoRA directory: name it with --ckpt_dir"),
        ({"model_id_or_path": str(INTERNVL2 / "media")}, "is not a checkpoint: it has no config.json"),
    ],
)
def test_directory_that_is_no_checkpoint_is_said(given, message):
    with pytest.raises(LoadError, match=message):
        locate(WorkerSettings(**given), MODEL_TYPES["internvl2-2b"], report=pytest.fail)


def test_fake_model_has_nothing_to_download():
    with pytest.raises(LoadError, match="fake has no weights to download"):
        locate(WorkerSettings(model_type="fake"), MODEL_TYPES["fake"], report=pytest.fail)


def test_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
        (place / "config.json").write_text("{}")
        (place / "model.safetensors").write_bytes(bytes(300_000))
    same = digest_of(here), digest_of(there)
    (there / "model.safetensors").write_bytes(bytes(299_999) + b"\1")

    assert same[0] == same[1] != digest_of(there)
    assert fingerprint("a", "bc") != fingerprint("ab", "c")


@pytest.mark.parametrize("part", [None, "llm_config"])
def test_checkpoint_that_is_quantised_already_is_refused(tmp_path, part):
    config = {"quantization_config": {"quant_method": "awq"}}
    (tmp_path / "config.json").write_text(json.dumps(config if part is None else {part: config}))
    settings = WorkerSettings(model_type="internvl2-2b", model_id_or_path=str(tmp_path))

    with pytest.raises(LoadError, match=r"is quantised already \(awq\), .* add --quantization"):
        locate(settings, MODEL_TYPES["internvl2-2b"], report=print)
