"""From what an operator types to the model that serves."""

import json
import subprocess
import sys

import pytest

from tests.cases import INTERNVL2, MINICPMV, QWEN2_AUDIO, QWEN_VL, YI_VL
from tests.worker.models import original
from worker.models.family import LoadError
from worker.models.registry import find_model_type, served_name
from worker.settings import WorkerSettings


def find(**given):
    return find_model_type(WorkerSettings(**given)).name


def checkpoint(folder, **config):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "internvl_chat"} | config))
    return str(folder)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"model_type": "internvl2-8b"}, "internvl2-8b"),
        ({"model_type": "fake"}, "fake"),
        ({"model_id_or_path": "OpenGVLab/InternVL2-2B"}, "internvl2-2b"),
        ({"model_id_or_path": "opengvlab/internvl2-llama3-76b"}, "internvl2-76b"),
        ({"model_id_or_path": str(INTERNVL2 / "checkpoint")}, "internvl2-2b"),
        ({"model_id_or_path": "qwen/Qwen2-Audio-7B-Instruct"}, "qwen2-audio-7b-instruct"),
        ({"model_id_or_path": str(QWEN2_AUDIO / "checkpoint")}, "qwen2-audio-7b-instruct"),
        ({"ckpt_dir": str(QWEN2_AUDIO / "adapter")}, "qwen2-audio-7b-instruct"),
        ({"ckpt_dir": str(INTERNVL2 / "adapter")}, "internvl2-2b"),
        ({"model_id_or_path": "openbmb/MiniCPM-Llama3-V-2_5"}, "minicpm-v-v2_5-chat"),
        ({"model_id_or_path": "OpenBMB/MiniCPM-V-2_6"}, "minicpm-v-v2_6-chat"),
        ({"model_id_or_path": str(MINICPMV["2.5"] / "checkpoint")}, "minicpm-v-v2_5-chat"),
        ({"model_id_or_path": str(MINICPMV["2.6"] / "checkpoint")}, "minicpm-v-v2_6-chat"),
        ({"ckpt_dir": str(MINICPMV["2.6"] / "adapter")}, "minicpm-v-v2_6-chat"),
        ({"ckpt_dir": str(INTERNVL2 / "checkpoint")}, "internvl2-2b"),
        ({"model_id_or_path": "qwen/Qwen-VL-Chat"}, "qwen-vl-chat"),
        ({"model_id_or_path": str(QWEN_VL / "checkpoint")}, "qwen-vl-chat"),
        ({"ckpt_dir": str(QWEN_VL / "adapter")}, "qwen-vl-chat"),
        ({"model_id_or_path": "01ai/Yi-VL-34B"}, "yi-vl-34b-chat"),
        ({"model_id_or_path": "01-ai/Yi-VL-6B"}, "yi-vl-6b-chat"),
        ({"model_id_or_path": str(YI_VL / "checkpoint")}, "yi-vl-6b-chat"),
        ({"ckpt_dir": str(YI_VL / "adapter_all")}, "yi-vl-6b-chat"),
        ({"model_type": "internvl2-26b", "ckpt_dir": str(INTERNVL2 / "adapter")}, "internvl2-26b"),
        ({"model_id_or_path": "someone/something"}, "generic"),
    ],
)
def test_model_type_is_found_from_whatever_names_the_model(given, name):
    assert find(**given) == name


@pytest.mark.parametrize(
    ("architecture", "width", "name"),
    [
        ("Qwen2ForCausalLM", 896, "internvl2-1b"),
        ("InternLM2ForCausalLM", 6144, "internvl2-26b"),
        ("InternLM2ForCausalLM", 17, "internvl2-2b"),
        ("Phi3ForCausalLM", 3072, "internvl2-4b"),
        ("LlamaForCausalLM", 8192, "internvl2-76b"),
    ],
)
def test_size_is_read_from_the_checkpoint(tmp_path, architecture, width, name):
    text = original.TEXT | {"architectures": [architecture], "hidden_size": width}

    assert find(model_id_or_path=checkpoint(tmp_path, llm_config=text)) == name


def test_larger_yi_is_known_by_its_width(tmp_path):
    config = json.loads((YI_VL / "checkpoint" / "config.json").read_text()) | {"hidden_size": 7168}

    assert find(model_id_or_path=checkpoint(tmp_path, **config)) == "yi-vl-34b-chat"


def test_directory_that_no_family_claims_is_the_generic_ones(tmp_path):
    assert find(model_id_or_path=checkpoint(tmp_path, model_type="qwen3_vl")) == "generic"
    assert find(ckpt_dir=str(tmp_path)) == "generic"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"model_id_or_path": "Qwen/Qwen3-VL-8B-Instruct"}, "Qwen3-VL-8B-Instruct"),
        ({"model_id_or_path": "{}/tuned/"}, "tuned"),
        ({"ckpt_dir": "{}/tuned", "model_id_or_path": "Qwen/Qwen3-VL-8B-Instruct"}, "tuned"),
        ({"model_id_or_path": "{}/tuned", "served_model_name": "mine"}, "mine"),
        ({"model_type": "internvl2-2b", "model_id_or_path": "{}/tuned"}, "internvl2-2b"),
    ],
)
def test_generic_model_is_called_as_its_directory_or_repository(tmp_path, given, name):
    checkpoint(tmp_path / "tuned", model_type="qwen3_vl")
    settings = WorkerSettings(**{key: value.format(tmp_path) for key, value in given.items()})

    assert served_name(settings, find_model_type(settings)) == name


def test_arguments_of_newer_runs_are_read_as_well(tmp_path):
    (tmp_path / "args.json").write_text('{"model_type": "internvl2", "model": "OpenGVLab/InternVL2-4B"}')
    (tmp_path / "adapter_config.json").write_text("{}")

    assert find(ckpt_dir=str(tmp_path)) == "internvl2-4b"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_type": "internvl-2b"}, "did you mean internvl2-2b"),
        ({"model_type": "gpt"}, "gpt is not a model type; known are internvl2-1b, .*generic, fake"),
        ({"model_id_or_path": "something"}, "something is neither a directory nor a hub id such as"),
        ({"model_id_or_path": "./someone/something"}, "neither a directory nor a hub id"),
        ({"ckpt_dir": "/nowhere"}, "--ckpt_dir /nowhere is not a directory"),
    ],
)
def test_unknown_model_is_told_what_is_known(given, message):
    with pytest.raises(LoadError, match=message):
        find(**given)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "minicpmv"}, "MiniCPM-V of version None; served are 2.5 and 2.6"),
        ({"llm_config": {"architectures": ["MambaForCausalLM"]}}, "language model is MambaForCausalLM"),
        ({"llm_config": None}, "language model is None"),
    ],
)
def test_directory_of_another_model_is_refused(tmp_path, config, message):
    with pytest.raises(LoadError, match=message):
        find(model_id_or_path=checkpoint(tmp_path, **config))


def test_adapter_that_names_no_base_asks_for_it(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")

    with pytest.raises(LoadError, match="add --model_type or --model_id_or_path"):
        find(ckpt_dir=str(tmp_path))


def test_finding_a_model_needs_no_torch():
    heavy = ("torch", "transformers", "PIL", "decord", "huggingface_hub", "modelscope")
    script = f"import sys, worker.models.registry; sys.exit(any(name in sys.modules for name in {heavy}))"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
