"""`baton models`: what can be served, and how."""

import json
import subprocess
from pathlib import Path

import pytest

from shared.catalogue import MODEL_TYPES
from tests.baton.deployed import BATON, without_settings
from tests.cases import INTERNVL2


def models(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BATON, "models", *arguments], env=without_settings(), capture_output=True, text=True)


def test_every_model_type_is_listed() -> None:
    shown = models()

    assert shown.returncode == 0, shown.stderr
    assert all(f" {name} " in shown.stdout for name in MODEL_TYPES)
    assert "OpenGVLab/InternVL2-2B" in shown.stdout


def test_directory_of_a_family_of_ours_is_named() -> None:
    shown = models(str(INTERNVL2 / "checkpoint"))

    assert "internvl2-2b" in shown.stdout
    assert "in a batch" in shown.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("qwen25vl", ("generic", "Qwen2_5_VLForConditionalGeneration", "text, image, video", "in a batch")),
        ("t5gemma2", ("generic", "T5Gemma2ForConditionalGeneration", "text, image", "alone: it is an encoder-decoder")),
        ("bloom", ("generic", "BloomForCausalLM", "alone: its forward takes no position_ids")),
    ],
)
def test_directory_says_how_it_would_run(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    from tests.worker.models import tiny

    shown = models(str(tiny.write_checkpoint(name, tmp_path)))

    assert shown.returncode == 0, shown.stderr
    assert all(word in shown.stdout for word in words)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "qwen"}, "transformers can't read"),
        ({"model_type": "vit"}, "holds a vit, which is no chat model that transformers knows"),
        (None, "can't be read"),
    ],
)
def test_directory_that_cannot_be_served_is_one_clear_line(
    tmp_path: Path, config: dict[str, str] | None, message: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))

    shown = models(str(tmp_path))

    assert shown.returncode == 1
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


def test_name_that_is_no_directory_is_told() -> None:
    assert "nowhere is not a directory" in models("nowhere").stderr
