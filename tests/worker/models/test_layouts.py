"""What fine-tuning runs leave behind, as each generation of ms-swift and as PEFT write it, for every golden model."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cases import GOLDEN, QWEN_VL, YI_VL, read_cases
from tests.worker.models import golden_audio, minicpmv
from tests.worker.models.golden import generate, golden_model, sequence, user
from worker.checkpoint import locate
from worker.engine.sequence import BASE
from worker.models.family import LoadError
from worker.models.registry import find_model_type, load_model
from worker.models.tuned import read_tuned
from worker.models.weights import open_weights
from worker.settings import WorkerSettings

BASES = {
    "internvl2-2b": golden_model,
    "qwen-vl-chat": partial(golden_model, None, QWEN_VL),
    "yi-vl-6b-chat": partial(golden_model, None, YI_VL),
    "minicpm-v-v2_5-chat": partial(minicpmv.golden_model, "2.5"),
    "minicpm-v-v2_6-chat": partial(minicpmv.golden_model, "2.6"),
    "qwen2-audio-7b-instruct": golden_audio.golden_audio_model,
}
LATER_NAMES = {
    "internvl2-2b": "internvl2",
    "qwen-vl-chat": "qwen_vl",
    "yi-vl-6b-chat": "yi_vl",
    "minicpm-v-v2_5-chat": "minicpmv2_5",
    "minicpm-v-v2_6-chat": "minicpmv2_6",
    "qwen2-audio-7b-instruct": "qwen2_audio",
}
"""What ms-swift 3 and 4 call model type and template."""
SYSTEM = "You are a pirate."


def checkpoint_of(model):
    return GOLDEN / model / "checkpoint"


def record(run, model, layout):
    """Let a run's directory say of itself what one generation of tools writes."""
    for path in [path for path in run.iterdir() if not path.name.startswith(("adapter_", "model"))]:
        if path.name in {"sft_args.json", "configuration.json", "additional_config.json"}:
            path.unlink()
    base, later = str(checkpoint_of(model)), LATER_NAMES[model]
    match layout:
        case "ms-swift 2":
            recorded = json.loads((GOLDEN / model / "adapter" / "sft_args.json").read_text("utf-8"))
            write(run / "sft_args.json", recorded | {"model_id_or_path": base, "system": SYSTEM})
        case "ms-swift 3":
            given = {"model": base, "model_type": later, "template": later, "train_type": "lora"}
            write(run / "args.json", given | {"system": SYSTEM, "swift_version": "3.12.6"})
        case "ms-swift 4":
            given = {
                "model": base,
                "model_type": later,
                "template": later,
                "tuner_type": "lora",
                "tuner_backend": "peft",
            }
            write(run / "args.json", given | {"system": SYSTEM, "swift_version": "4.6.0", "merge_lora": None})
        case "peft":
            path = run / "adapter_config.json"
            write(path, json.loads(path.read_text("utf-8")) | {"base_model_name_or_path": base})


def write(path, content):
    path.write_text(json.dumps(content), "utf-8")


def respell(run, spell):
    path = run / "adapter_model.safetensors"
    save_file({spell(key): tensor for key, tensor in load_file(path).items()}, path)


def as_swifts_tuner(run):
    """Into a folder named after the adapter, with keys that are neither prefixed nor ended as PEFT's."""
    respell(run, lambda key: key.removeprefix("base_model.model.").removesuffix(".weight"))
    (run / "default").mkdir()
    for path in run.glob("adapter_*"):
        path.rename(run / "default" / path.name)


SHAPES = {
    "as saved": lambda run: None,
    "with the adapter's name": lambda run: respell(run, lambda key: key.replace(".weight", ".default.weight")),
    "by swift's own tuner": as_swifts_tuner,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["ms-swift 2", "ms-swift 3", "ms-swift 4", "peft"])
@pytest.mark.parametrize("model", BASES)
def test_adapter_of_every_tool_finds_its_base_and_its_system_text(tmp_path, model, layout, shape):
    slots = BASES[model]().runner.adapters
    expected = read_tuned(str(GOLDEN / model / "adapter"), slots).changes
    run = shutil.copytree(GOLDEN / model / "adapter", tmp_path / "checkpoint-10")
    record(run, model, layout)
    SHAPES[shape](run)
    asked = WorkerSettings(ckpt_dir=str(run), merge_lora=True)

    entry = find_model_type(asked)
    found = locate(asked, entry, report=lambda words: None)
    tuned = read_tuned(str(run), slots)

    assert (entry.name, found.directory) == (model, checkpoint_of(model))
    assert tuned.system == found.system == (None if layout == "peft" else SYSTEM)
    assert tuned.changes.keys() == expected.keys()
    assert all(c.b.equal(tuned.changes[n].b) and c.scale == tuned.changes[n].scale for n, c in expected.items())


@pytest.mark.parametrize("model", BASES)
def test_command_line_wins_over_what_the_run_recorded(tmp_path, model):
    run = shutil.copytree(GOLDEN / model / "adapter", tmp_path / "checkpoint-10")
    recorded = {"model_type": "internvl2-8b", "model_id_or_path": "/gone", "template_type": "chatml"}
    write(run / "sft_args.json", recorded)
    asked = WorkerSettings(ckpt_dir=str(run), model_type=model, model_id_or_path=str(checkpoint_of(model)))

    entry = find_model_type(asked)

    assert (entry.name, locate(asked, entry, report=lambda words: None).directory) == (model, checkpoint_of(model))


@pytest.mark.parametrize("model", BASES)
def test_template_that_the_model_is_not_served_with_is_refused(tmp_path, model):
    run = shutil.copytree(GOLDEN / model / "adapter", tmp_path / "checkpoint-10")
    write(run / "sft_args.json", {"model_type": model, "template_type": "chatml"})

    with pytest.raises(LoadError, match=f"trained with the template chatml.*add --model_type {model}"):
        find_model_type(WorkerSettings(ckpt_dir=str(run)))


def write_merged(run, model, layout):
    """As ms-swift merges: transformers' weights and configuration, the base's other files, and the run's record."""
    shutil.copytree(checkpoint_of(model), run)
    weights = open_weights(run, GOLDEN / model / "adapter", report=lambda words: None)
    for path in run.glob("*.bin*"):
        path.unlink()
    save_file({k: w[...].contiguous().clone() for k, w in weights.items()}, run / "model.safetensors", {"format": "pt"})
    for path in run.glob("model-0*"):
        path.unlink()
    (run / "model.safetensors.index.json").unlink(missing_ok=True)
    config = json.loads((run / "config.json").read_text("utf-8"))
    config |= {"_name_or_path": "/root/.cache/hub/base", "transformers_version": "4.47.1"}
    if "mm_vision_tower" in config:  # a run loads it from where the base lies, and saves that
        config["mm_vision_tower"] = "/root/.cache/hub/base/vit/" + Path(config["mm_vision_tower"]).name
    write(run / "config.json", config)
    record(run, model, layout)
    if layout == "ms-swift 2":
        path = run / "sft_args.json"
        write(path, json.loads(path.read_text("utf-8")) | {"sft_type": "full", "model_id_or_path": "/gone"})


@pytest.mark.parametrize("layout", ["ms-swift 2", "ms-swift 4"])
@pytest.mark.parametrize("model", BASES)
def test_merged_checkpoint_answers_as_the_authors_code_does_with_the_adapter(tmp_path, model, layout):
    run = tmp_path / "checkpoint-10-merged"
    write_merged(run, model, layout)
    cases = read_cases(GOLDEN / model).values()
    case = next(case for case in cases if case.facts["adapter"] == "adapter" and media_of(case))

    served = load_model(WorkerSettings(ckpt_dir=str(run), max_model_len=2048), report=lambda words: None)
    messages, media = case.messages()
    own = BASES[model]().prepare(messages, media)  # without the run's system text, which the case isn't about
    answer = sequence(own, max_tokens=case.facts["max_new_tokens"])
    generate(served.runner, answer)

    assert answer.token_ids == case.facts["greedy_ids"]
    assert SYSTEM in written(served)


def media_of(case):
    return any(isinstance(message["content"], list) for message in case.facts["messages"])


def written(model):
    """The words of a prompt, as the family's own tokenizer reads them."""
    return model.vocabulary.decode(model.prepare(user("hi"), {}).token_ids)


@pytest.mark.parametrize("model", BASES)
def test_adapter_trained_on_the_native_classes_merges_as_well(tmp_path, model):
    """As transformers 5 names their layers, which the checkpoint's own weights aren't called."""
    base = BASES[model]()
    changes = read_tuned(str(GOLDEN / model / "adapter"), base.runner.adapters).changes
    run = shutil.copytree(GOLDEN / model / "adapter", tmp_path / "checkpoint-10")
    native = {
        f"base_model.model.{name}.lora_{half}.weight": getattr(change, half.lower()).contiguous().clone()
        for name, change in changes.items()
        for half in "AB"
    }
    save_file(native, run / "adapter_model.safetensors")
    given = {"model_type": model, "model_id_or_path": str(checkpoint_of(model)), "merge_lora": True}

    merged = load_model(WorkerSettings(ckpt_dir=str(run), max_model_len=2048, **given), report=lambda words: None)

    name, change = next(iter(changes.items()))
    before, after = (m.runner._model.get_submodule(name).weight for m in (base, merged))
    torch.testing.assert_close(after, change.add_to(before), atol=1e-6, rtol=1e-6)
    assert not after.equal(before)


@pytest.mark.parametrize("model", BASES)
def test_rows_of_base_and_adapters_in_one_batch_are_the_authors(model):
    """What the merged adapters are proven to say, unmerged and in company."""
    base, cases = BASES[model](), read_cases(GOLDEN / model).values()
    tuned = [case for case in cases if case.facts["adapter"]]
    plain = [case for case in cases if not case.facts["adapter"] and "special" not in case.name][: len(tuned)]
    slots = {None: BASE} | {name: 1 + i for i, name in enumerate(sorted({case.facts["adapter"] for case in tuned}))}
    for name, slot in slots.items():
        if name is not None:
            adapters = base.runner.adapters
            adapters.put(slot, read_tuned(str(GOLDEN / model / name), adapters).changes)
    mixed = [case for pair in zip(tuned, plain, strict=True) for case in pair]
    rows = [sequence(base.prepare(*case.messages()), case.name, case.facts["max_new_tokens"]) for case in mixed]
    for row, case in zip(rows, mixed, strict=True):
        row.adapter = slots[case.facts["adapter"]]

    generate(base.runner, *rows)

    for slot in slots.values():
        base.runner.adapters.clear(slot)
    assert [case.facts["greedy_ids"] for case in mixed] == [row.token_ids for row in rows]
