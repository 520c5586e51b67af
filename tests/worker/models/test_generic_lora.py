"""Adapters of native classes: peft is the arbiter, whatever transformers called the modules when they were trained."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.worker.models import mix, peft_run
from tests.worker.models.golden import generate, sequence
from worker.models.family import LoadError
from worker.models.registry import find_model_type, load_model
from worker.models.tuned import read_tuned
from worker.settings import WorkerSettings

KINDS = ("llama", "qwen2vl", "qwen35", "internvl", "llava", "gemma3", "qwen2audio")


def checkpoint_of(model):
    return Path(model.tokenizer.name_or_path)


def merged(adapter, **given):
    return load_model(WorkerSettings(ckpt_dir=str(adapter), merge_lora=True, **given), report=lambda words: None)


def put(model, slot, path):
    slots = model.runner.adapters
    slots.put(slot, read_tuned(str(path), slots).changes)


def seen(model, slot, prompt):
    """What the network says after a prompt, in a slot."""
    model.runner.adapters.select([slot])
    return peft_run.logits(model.runner._model, prompt)


def prompt_of(model):
    """One with media, if the model takes any."""
    return model.prepare(*mix.conversation(random.Random(1), 1, model.facts.modalities))


def answer(prompt, slot, name):
    one = sequence(prompt, name, max_tokens=8)
    one.adapter = slot
    return one


@pytest.mark.parametrize("name", KINDS)
def test_adapter_of_any_age_says_what_peft_says_beside_its_base_and_merged(load_tiny, tmp_path, name):
    model = load_tiny(name)
    prompt = prompt_of(model)
    expected = peft_run.logits(peft_run.tune(checkpoint_of(model), tmp_path), prompt)
    base = seen(model, 0, prompt)

    put(model, 1, tmp_path)
    beside = seen(model, 1, prompt)
    after = peft_run.logits(merged(tmp_path, model_type="generic").runner._model, prompt)
    older = peft_run.rename(tmp_path, peft_run.OLDER[name])
    put(model, 2, tmp_path)
    from_older = seen(model, 2, prompt)
    model.runner.adapters.clear(1)
    model.runner.adapters.clear(2)

    assert (expected - base).abs().max() > 0.05
    torch.testing.assert_close(beside, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(after, expected, atol=1e-3, rtol=1e-3)
    assert from_older.equal(beside)
    assert all(key.startswith("base_model.model.") for key in older)


def test_layer_that_its_owner_runs_can_be_merged_only(load_tiny, tmp_path):
    model = load_tiny("onevision")
    prompt = prompt_of(model)
    expected = peft_run.logits(peft_run.tune(checkpoint_of(model), tmp_path, exclude_modules=None), prompt)

    with pytest.raises(LoadError, match=r"head.attention.out_proj, which isn't run as a layer .* --merge_lora true"):
        read_tuned(str(tmp_path), model.runner.adapters)

    after = peft_run.logits(merged(tmp_path, model_type="generic").runner._model, prompt)
    torch.testing.assert_close(after, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 7}},
        {"alpha_pattern": {"down_proj": 9, r"^model\.layers\.0\.self_attn\.q_proj": 1}},
        {"use_rslora": True, "rank_pattern": {"o_proj": 9}, "alpha_pattern": {"mlp.up_proj": 3}},
    ],
    ids=["ranks", "alphas", "rslora"],
)
def test_ranks_and_scales_of_single_layers_are_pefts(load_tiny, tmp_path, options):
    model = load_tiny("llama")
    prompt = prompt_of(model)
    plain = peft_run.logits(peft_run.tune(checkpoint_of(model), tmp_path / "plain"), prompt)
    expected = peft_run.logits(peft_run.tune(checkpoint_of(model), tmp_path / "own", **options), prompt)

    put(model, 1, tmp_path / "own")
    ours = seen(model, 1, prompt)
    model.runner.adapters.clear(1)

    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)
    assert (expected - plain).abs().max() > 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}, "modules_to_save"),
        ({"bias": "lora_only", "target_modules": ["q_proj"]}, "bias=lora_only"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_beside_its_base_and_merged(load_tiny, tmp_path, options, words):
    model = load_tiny("llama")
    peft_run.tune(checkpoint_of(model), tmp_path, **options)

    for load in (lambda: read_tuned(str(tmp_path), model.runner.adapters), lambda: merged(tmp_path)):
        with pytest.raises(LoadError, match=f"LoRA with {words} can't be loaded: merge it with the tool"):
            load()


def test_rows_of_base_and_adapters_say_together_what_they_say_alone_and_what_peft_generates(load_tiny, tmp_path):
    model = load_tiny("qwen2vl")
    requests = [prompt for prompt, _ in mix.mixed(model)[:6]]
    tuned = {slot: peft_run.tune(checkpoint_of(model), tmp_path / f"{slot}", seed=slot) for slot in (1, 2)}
    for slot in tuned:
        put(model, slot, tmp_path / f"{slot}")
    together = [answer(prompt, index % 3, f"{index}") for index, prompt in enumerate(requests)]

    generate(model.runner, *together, max_num_seqs=4)

    for slot in tuned:
        model.runner.adapters.clear(slot)
    for one, prompt in zip(together, requests, strict=True):
        network = tuned[one.adapter] if one.adapter else model.runner._model
        given = {**prompt.features, **prompt.token_features}
        with torch.inference_mode():
            whole = network.generate(
                input_ids=torch.tensor([prompt.token_ids]), **given, max_new_tokens=8, do_sample=False
            )
        assert whole[0, len(prompt.token_ids) :].tolist() == one.token_ids


def test_fused_experts_are_refused_with_the_way_out(load_tiny, tmp_path):
    model = load_tiny("deepseek3")
    expert = "base_model.model.model.layers.1.mlp.experts.0.gate_proj"
    peft_run.write_plain(tmp_path, {expert: (32, 64)})

    with pytest.raises(LoadError, match=r"gate_proj.weight, which is loaded fused with others: merge it"):
        read_tuned(str(tmp_path), model.runner.adapters)


def test_base_and_system_text_are_found_from_the_run(load_tiny, tmp_path):
    model = load_tiny("llama")
    peft_run.tune(checkpoint_of(model), tmp_path, target_modules=["q_proj"])  # peft's own record of its base
    (tmp_path / "args.json").write_text(json.dumps({"system": "say it one by one", "model_type": "llama3"}))
    asked = WorkerSettings(ckpt_dir=str(tmp_path))

    assert find_model_type(asked).name == "generic"
    prompt = merged(tmp_path).prepare(*mix.conversation(random.Random(1), 1, ()))

    assert "say it one by one" in model.tokenizer.decode(prompt.token_ids)
    assert read_tuned(str(tmp_path), model.runner.adapters).system == "say it one by one"


def test_command_line_wins_over_the_recorded_base(load_tiny, tmp_path):
    model = load_tiny("llama")
    peft_run.tune(checkpoint_of(model), tmp_path, target_modules=["q_proj"])
    (tmp_path / "args.json").write_text(json.dumps({"model": "/gone/for/ever"}))

    with pytest.raises(LoadError, match=r"/gone/for/ever is neither a directory nor a hub id .*--model_id_or_path"):
        merged(tmp_path)
    assert merged(tmp_path, model_id_or_path=str(checkpoint_of(model))).facts.max_model_len == 4096


def test_merged_checkpoint_of_a_run_serves_by_itself(load_tiny, tmp_path):
    """As `swift export --merge_lora` leaves it: transformers' own files, and args.json."""
    model = load_tiny("llama")
    prompt = prompt_of(model)
    tuned = peft_run.tune(checkpoint_of(model), tmp_path / "checkpoint-10")
    expected = peft_run.logits(tuned, prompt)
    directory = shutil.copytree(checkpoint_of(model), tmp_path / "checkpoint-10-merged")
    tuned.merge_and_unload().save_pretrained(directory)
    (directory / "args.json").write_text(json.dumps({"model": "/gone", "system": "say it", "train_type": "lora"}))

    served = load_model(WorkerSettings(ckpt_dir=str(directory)), report=lambda words: None)

    torch.testing.assert_close(peft_run.logits(served.runner._model, prompt), expected, atol=1e-3, rtol=1e-3)
    assert served.system == "say it"
