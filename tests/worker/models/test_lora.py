"""Adapters beside their base, in one batch: what is right merged and alone is right stacked and in company."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cases import INTERNVL2
from tests.worker.models.golden import CASES, generate, sequence, settings, user
from worker.engine.engine import Engine
from worker.engine.sequence import BASE
from worker.engine.torch_runner import TorchRunner
from worker.models.family import LoadError
from worker.models.registry import load_model
from worker.models.tuned import read_tuned

SLOTS = {None: BASE, "adapter": 1, "adapter_all": 2}
NAMES = (
    "adapter_text",
    "text_only",
    "adapter_all_image",
    "image_photo",
    "adapter_image",
    "text_chinese",
    "two_images",
    "image_square",
)
TUNED = [name for name in NAMES if CASES[name].facts["adapter"]]


@pytest.fixture(scope="module")
def model():
    """The base with both golden adapters beside it."""
    model = load_model(settings(), report=lambda words: None)
    for name, slot in SLOTS.items():
        if name is not None:
            put(model, slot, INTERNVL2 / name)
    return model


@pytest.fixture
def adapter(tmp_path):
    """A copy of the golden adapter, to be altered."""
    return shutil.copytree(INTERNVL2 / "adapter", tmp_path / "checkpoint-10")


def put(model, slot, path):
    slots = model.runner.adapters
    slots.put(slot, read_tuned(str(path), slots).changes)


def alter_config(adapter, **changes):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def alter_tensors(adapter, change):
    path = adapter / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


def of_case(model, name, slot=None, **given):
    case = CASES[name]
    prompt = model.prepare(*case.messages())
    slot = SLOTS[case.facts["adapter"]] if slot is None else slot
    one = sequence(prompt, name, **{"max_tokens": case.facts["max_new_tokens"]} | given)
    one.adapter = slot
    return one


def logits_of(model, slot, name="adapter_image"):
    """What the network says after a case's prompt."""
    prompt = model.prepare(*CASES[name].messages())
    model.runner.adapters.select([slot])
    with torch.inference_mode():
        ids = torch.tensor([prompt.token_ids])
        return model.runner._model(input_ids=ids, logits_to_keep=1, **prompt.features).logits[0, -1]


def run(engine, one):
    engine.add(one)
    while not one.is_finished:
        engine.step()
    return one


def num_hooks(model):
    """transformers has some of its own."""
    return sum(len(module._forward_hooks) for module in model.runner._model.modules())


@pytest.mark.parametrize("name", TUNED)
def test_logits_beside_the_base_are_the_original_ones(model, name):
    expected = load_file(CASES[name].tensors_path)["prompt_logits"]

    logits = logits_of(model, SLOTS[CASES[name].facts["adapter"]], name)

    torch.testing.assert_close(logits, expected, atol=5e-3, rtol=0)


def test_eight_rows_of_base_and_adapters_answer_as_alone_and_as_the_authors_code(model):
    alone = [of_case(model, name) for name in NAMES]
    for one in alone:
        generate(model.runner, one)
    together = [of_case(model, name) for name in NAMES]

    texts = generate(model.runner, *together)

    assert [CASES[name].facts["greedy_text"] for name in NAMES] == texts
    assert [one.token_ids for one in alone] == [one.token_ids for one in together]


def test_rows_that_move_keep_their_adapters(model):
    answers = [of_case(model, name, max_tokens=3 + 3 * (place % 3)) for place, name in enumerate(NAMES)]

    generate(model.runner, *answers, max_num_seqs=3)

    for answer in answers:
        assert answer.token_ids == CASES[answer.id].facts["greedy_ids"][: answer.max_tokens]


@pytest.mark.parametrize("name", TUNED)
def test_resumed_answer_goes_on_with_its_adapter(model, name):
    greedy_ids = CASES[name].facts["greedy_ids"]
    resumed = of_case(model, name, token_ids=tuple(greedy_ids[:3]))

    generate(model.runner, resumed, of_case(model, "text_only"))

    assert greedy_ids == resumed.token_ids


def test_same_prompt_is_answered_by_each_in_its_own_way(model):
    alone = [of_case(model, "adapter_text", slot=slot) for slot in (0, 1, 2)]
    for answer in alone:
        generate(model.runner, answer)
    together = [of_case(model, "adapter_text", slot=slot) for slot in (0, 1, 2)]

    generate(model.runner, *together)

    assert [answer.token_ids for answer in alone] == [answer.token_ids for answer in together]
    assert len({tuple(answer.token_ids) for answer in together}) == 3


def test_slot_that_is_filled_anew_shares_nothing_of_what_it_held():
    model = load_model(settings(), report=lambda words: None)
    put(model, 1, INTERNVL2 / "adapter")
    engine = Engine(model.runner, 8)
    run(engine, of_case(model, "adapter_all_image", slot=1))
    model.runner.adapters.clear(1)
    put(model, 1, INTERNVL2 / "adapter_all")

    answer = run(engine, of_case(model, "adapter_all_image", slot=1))

    assert answer.token_ids == CASES["adapter_all_image"].facts["greedy_ids"]
    assert answer.num_cached_tokens == 0


def test_picture_is_encoded_by_each_adapters_own_tower():
    model = load_model(settings(), report=lambda words: None)
    put(model, 1, INTERNVL2 / "adapter")
    put(model, 2, INTERNVL2 / "adapter_all")
    engine = Engine(model.runner, 8)
    num_encoded = []

    for slot in (1, 2, 1):
        run(engine, of_case(model, "adapter_all_image", slot=slot))
        num_encoded.append(engine.stats.media.misses)

    assert num_encoded[0] < num_encoded[1] == num_encoded[2]


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"lora_alpha": 5}])
def test_adapter_of_another_rank_and_scale_answers_as_if_merged(model, adapter, config):
    """Of rank 3, beside one of rank 8."""
    alter_config(adapter, r=3, **config)
    alter_tensors(
        adapter, lambda tensors: {k: t[:3].clone() if "lora_A" in k else t[:, :3].clone() for k, t in tensors.items()}
    )
    merged = load_model(settings(ckpt_dir=str(adapter), merge_lora=True), report=lambda words: None)

    put(model, 3, adapter)
    logits = logits_of(model, 3)
    model.runner.adapters.clear(3)

    torch.testing.assert_close(logits, logits_of(merged, BASE), atol=5e-3, rtol=0)


def test_emptied_slot_leaves_the_base_as_it_was_and_its_neighbour_undisturbed():
    model = load_model(settings(), report=lambda words: None)
    base, hooks_before = logits_of(model, BASE), num_hooks(model)
    put(model, 1, INTERNVL2 / "adapter")
    put(model, 2, INTERNVL2 / "adapter_all")
    first, second = logits_of(model, 1), logits_of(model, 2)

    model.runner.adapters.clear(2)
    assert logits_of(model, 1).equal(first)
    put(model, 2, INTERNVL2 / "adapter_all")
    assert logits_of(model, 2).equal(second)
    model.runner.adapters.clear(1)
    model.runner.adapters.clear(2)

    assert logits_of(model, BASE).equal(base)
    assert num_hooks(model) == hooks_before


def test_adapter_comes_and_goes_while_others_are_answered(model):
    engine, name = Engine(model.runner, 8), "adapter_image"
    for one in (answers := [of_case(model, name), of_case(model, "image_photo")]):
        engine.add(one)
    for _ in range(4):
        engine.step()
    put(model, 3, INTERNVL2 / "adapter_all")
    for _ in range(2):
        engine.step()
    model.runner.adapters.clear(3)

    while engine.has_work:
        engine.step()

    assert [CASES[one.id].facts["greedy_ids"] for one in answers] == [one.token_ids for one in answers]


@pytest.mark.parametrize(
    "spell",
    [
        lambda key: key.replace(".weight", ".default.weight"),
        lambda key: key.removeprefix("base_model.model.").removesuffix(".weight"),
    ],
    ids=["with the adapter's name", "as ms-swift's own tuners"],
)
def test_other_spellings_of_the_keys_are_understood(model, adapter, spell):
    expected = read_tuned(str(INTERNVL2 / "adapter"), model.runner.adapters).changes
    alter_tensors(adapter, lambda tensors: {spell(key): tensor for key, tensor in tensors.items()})

    changes = read_tuned(str(adapter), model.runner.adapters).changes

    assert changes.keys() == expected.keys()
    assert all(changes[name].b.equal(expected[name].b) for name in changes)


def test_adapter_trained_on_the_native_classes_is_understood(model, adapter):
    expected = read_tuned(str(INTERNVL2 / "adapter"), model.runner.adapters).changes
    native = {
        f"base_model.model.{name}.lora_{half}.weight": getattr(change, half.lower()).contiguous().clone()
        for name, change in expected.items()
        for half in "AB"
    }
    save_file(native, adapter / "adapter_model.safetensors")

    assert read_tuned(str(adapter), model.runner.adapters).changes.keys() == expected.keys()


@pytest.mark.parametrize("targets", [["wqkv", "wo"], ".*wqkv$", None])
def test_plain_peft_directory_of_any_target_modules_loads(model, adapter, targets):
    """What was trained is in the tensors; peft's own directories hold nothing else."""
    for path in adapter.iterdir():
        if not path.name.startswith("adapter_"):
            path.unlink()
    alter_config(adapter, target_modules=targets)

    tuned = read_tuned(str(adapter), model.runner.adapters)

    assert len(tuned.changes) == 23
    assert tuned.system is None


def test_directory_of_later_versions_loads(model, adapter):
    """ms-swift 3 and 4 record themselves in args.json, and some tuners write into a subfolder."""
    (adapter / "sft_args.json").unlink()
    (adapter / "args.json").write_text(json.dumps({"model_type": "internvl2", "system": "You are a pirate."}))
    (adapter / "default").mkdir()
    for path in adapter.glob("adapter_*"):
        path.rename(adapter / "default" / path.name)

    tuned = read_tuned(str(adapter), model.runner.adapters)

    assert len(tuned.changes) == 23
    assert tuned.system == "You are a pirate."


def half(tensors, shape):
    return {key: tensor[..., :shape].clone() if "lora_A" in key else tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("alteration", "message"),
    [
        (lambda tensors: half(tensors, 7), "in another shape: was it trained on another model"),
        (lambda tensors: {k: t[:-1].clone() if "lora_B" in k else t for k, t in tensors.items()}, "in another shape"),
        (lambda tensors: {k.replace("wo", "wy"): t for k, t in tensors.items()}, "which the base model lacks"),
        (lambda tensors: {k: t for k, t in tensors.items() if "w1.lora_A" not in k}, "has no lora_A"),
        (lambda tensors: tensors | {"base_model.model.x.lora_magnitude_vector": torch.ones(3)}, "it has base_model"),
        (
            lambda tensors: {
                "base_model.model.language_model.model.tok_embeddings.lora_A.weight": torch.ones(8, 64),
                "base_model.model.language_model.model.tok_embeddings.lora_B.weight": torch.ones(779, 8),
            },
            "no linear layer",
        ),
    ],
)
def test_adapter_that_does_not_fit_is_refused(model, adapter, alteration, message):
    alter_tensors(adapter, alteration)

    with pytest.raises(LoadError, match=message):
        read_tuned(str(adapter), model.runner.adapters)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "can't be read"),
        ('{"lora_alpha": null}', "no lora_alpha"),
        ('{"lora_alpha": 1, "use_dora": true}', "use_dora=True"),
        ('{"lora_alpha": 1, "lora_bias": true}', "lora_bias=True"),
        ('{"lora_alpha": 1, "modules_to_save": ["mlp1"]}', "modules_to_save"),
        ('{"peft_type": "ADALORA"}', "adapters of type ADALORA"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused(model, adapter, config, message):
    (adapter / "adapter_config.json").write_text(config)

    with pytest.raises(LoadError, match=message):
        read_tuned(str(adapter), model.runner.adapters)


def test_directory_without_an_adapter_is_refused(model, tmp_path):
    with pytest.raises(LoadError, match="not a LoRA directory"):
        read_tuned(str(tmp_path), model.runner.adapters)


def test_half_precision_takes_adapters_as_well(model):
    network = model.runner._model
    half = type(network)._from_config(network.config, dtype=torch.bfloat16).eval()
    runner = TorchRunner(half, max_num_seqs=2, max_model_len=512)
    runner.adapters.put(1, read_tuned(str(INTERNVL2 / "adapter"), runner.adapters).changes)
    answers = [sequence(model.prepare(user("Hello there"), {}), str(slot)) for slot in (0, 1)]
    answers[1].adapter = 1

    generate(runner, *answers)

    assert all(answer.is_finished for answer in answers)
    assert answers[0].token_ids != answers[1].token_ids


def test_scale_of_a_rank_stabilised_adapter_divides_by_the_root(model, adapter):
    alter_config(adapter, use_rslora=True)

    changes = read_tuned(str(adapter), model.runner.adapters).changes

    assert {change.scale for change in changes.values()} == {32 / math.sqrt(8)}
