"""Language models in fewer bits: near what they were, each row by itself, adapters on top."""

import random
from functools import partial

import pytest
import torch

from tests.cases import INTERNVL2, MINICPMV, QWEN2_AUDIO, QWEN_VL, YI_VL
from tests.worker.models import libraries, mix, peft_run
from tests.worker.models.golden import CASES, generate, golden_model, sequence, settings, user
from worker.engine.call import find_decoder
from worker.engine.script import Scripts
from worker.engine.torch_runner import TorchRunner
from worker.models.family import LoadError
from worker.models.quantization import Int8Linear, Quantization, check_worth
from worker.models.registry import load_model
from worker.models.tuned import read_tuned

KINDS = [kind for kind in Quantization if kind is not Quantization.NONE]
NAMES = ("text_only", "image_photo", "text_chinese", "two_images")


@pytest.fixture(scope="module", autouse=True)
def _libraries():
    libraries.offer()


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return load(kind)


def load(kind, **given):
    return load_model(settings(quantization=str(kind), **given), report=lambda words: None)


def network(model):
    return model.runner._model


def plain_weight(linear):
    """A layer's weight as it is computed with."""
    weight = linear.weight
    if hasattr(linear, "scale"):
        return weight.float() * linear.scale
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state)
    return weight.dequantize()


def farthest(kind, original):
    """How far a weight may be off by the format: half a step of its row, or of its block of 64."""
    if kind is Quantization.BNB_NF4:
        blocks = original.reshape(-1, 64)
        widest = 0.304 / 2 + 0.02  # the gap between -1 and -0.696, the least two values; and scales in eight bits
        return (blocks.abs().amax(1, keepdim=True) * widest).expand_as(blocks).reshape(original.shape)
    step = original.abs().amax(1, keepdim=True) / 127
    return (step * 0.5 + original.abs() * 2**-10).expand_as(original)  # bitsandbytes reads float16


def copy_of(model):
    """The unquantised network with the quantised one's weights, computed plainly."""
    reference = load_model(settings(), report=lambda words: None)
    for name, linear in quantised(model).items():
        network(reference).get_submodule(name).weight.data = plain_weight(linear).detach().clone()
    return reference


def quantised(model):
    """The linear layers of the language model's layers, by name."""
    whole = network(model)
    layers = find_decoder(whole).layers
    inside = {id(module) for module in layers.modules()}
    return {n: m for n, m in whole.named_modules() if id(m) in inside and isinstance(m, torch.nn.Linear)}


def of_case(model, name, slot=0):
    one = sequence(model.prepare(*CASES[name].messages()), name, max_tokens=8)
    one.adapter = slot
    return one


def logits_of(model, name, slot=0):
    prompt = model.prepare(*CASES[name].messages())
    model.runner.adapters.select([slot])
    with torch.inference_mode():
        ids = torch.tensor([prompt.token_ids])
        return network(model)(input_ids=ids, logits_to_keep=1, **prompt.features).logits[0, -1]


def test_weights_are_within_half_a_step_and_all_else_is_as_it_was(kind):
    model, base = load(kind), network(golden_model())
    changed = quantised(model)

    assert_near(model, base, kind)
    assert not any(plain_weight(linear).equal(base.get_submodule(name).weight) for name, linear in changed.items())
    assert len(changed) == 7 * len(find_decoder(base).layers)
    others = {n: p for n, p in network(model).named_parameters() if n.rpartition(".")[0] not in changed}
    assert {"lm_head.weight", "model.multi_modal_projector.linear_1.weight"} <= others.keys()
    assert all(base.get_parameter(name).equal(weight) for name, weight in others.items())


def test_answers_are_those_of_the_same_weights_computed_plainly(model):
    reference = copy_of(model)

    for name in NAMES[:2]:
        torch.testing.assert_close(logits_of(model, name), logits_of(reference, name), atol=2e-3, rtol=0)


def test_rows_answer_in_company_as_alone(model):
    alone = [of_case(model, name) for name in NAMES]
    for one in alone:
        generate(model.runner, one)
    together = [of_case(model, name) for name in NAMES]

    generate(model.runner, *together)

    assert [one.token_ids for one in alone] == [one.token_ids for one in together]


def test_a_program_says_what_the_steps_that_it_was_recorded_of_say(model):
    eager, recorded = (
        TorchRunner(network(model), 4, 1024, record=record) for record in (None, partial(Scripts, patience=1))
    )
    said = []
    for runner in (eager, recorded):
        together = [of_case(model, name) for name in NAMES]
        generate(runner, *together)
        said.append([one.token_ids for one in together])

    assert said[0] == said[1]
    assert recorded._forward.programs.keys() == {False}


def test_adapter_beside_is_its_change_of_the_rounded_weights(model):
    """On language model, projector and vision tower; base and adapter in one batch."""
    slots, reference = model.runner.adapters, copy_of(model)
    changes = read_tuned(str(INTERNVL2 / "adapter_all"), slots).changes
    for name, change in changes.items():
        weight = network(reference).get_submodule(name).weight
        weight.data = change.add_to(weight.data)
    slots.put(1, changes)

    by_hand, beside = (logits_of(m, "image_photo", slot) for m, slot in ((reference, 0), (model, 1)))
    alone = [of_case(model, name, slot) for slot, name in enumerate(NAMES[:2])]
    for one in alone:
        generate(model.runner, one)
    together = [of_case(model, name, slot) for slot, name in enumerate(NAMES[:2])]
    generate(model.runner, *together)
    slots.clear(1)

    torch.testing.assert_close(beside, by_hand, atol=5e-3, rtol=0)
    assert (beside - logits_of(model, "image_photo")).abs().max() > 0.1
    assert [one.token_ids for one in alone] == [one.token_ids for one in together]


def test_adapter_is_merged_before_weights_are_rounded(kind):
    merged = load(kind, ckpt_dir=str(INTERNVL2 / "adapter_all"), merge_lora=True)

    assert_near(merged, network(golden_model("adapter_all")), kind)


def test_layers_compute_in_the_models_own_precision(kind):
    model = load(kind, dtype="bf16")
    model.runner.adapters.put(1, read_tuned(str(INTERNVL2 / "adapter_all"), model.runner.adapters).changes)

    generate(model.runner, of_case(model, "image_photo", slot=1), of_case(model, "text_only"))

    assert logits_of(model, "text_only", slot=1).dtype is torch.bfloat16


@pytest.mark.parametrize("folder", [QWEN_VL, YI_VL, QWEN2_AUDIO, *MINICPMV.values()], ids=lambda folder: folder.name)
def test_every_family_is_quantised_layer_by_layer(folder):
    quantized = load(Quantization.BNB_INT8, model_id_or_path=str(folder / "checkpoint"), max_model_len=1024)
    one = sequence(quantized.prepare(user("Hello."), {}), max_tokens=4)

    generate(quantized.runner, one)

    assert len(one.token_ids) > 0
    assert all(isinstance(linear, Int8Linear) for linear in quantised(quantized).values())
    assert_near(quantized, network(golden_model(None, folder)), Quantization.BNB_INT8)


def test_generic_model_says_what_its_own_generate_says(kind, load_tiny):
    checkpoint = load_tiny("llama").tokenizer.name_or_path
    model = load(kind, model_type="generic", model_id_or_path=checkpoint)
    prompt = model.prepare(*mix.conversation(random.Random(1), 1, ()))
    one = sequence(prompt, max_tokens=8)

    generate(model.runner, one)
    expected = network(model).generate(torch.tensor([prompt.token_ids]), max_new_tokens=8, do_sample=False)

    assert expected[0, len(prompt.token_ids) :].tolist() == one.token_ids


def test_generic_adapter_is_merged_before_weights_are_rounded(load_tiny, tmp_path):
    checkpoint, kind = load_tiny("llama").tokenizer.name_or_path, Quantization.BNB_NF4
    peft_run.tune(checkpoint, tmp_path)
    given = {"model_type": "generic", "model_id_or_path": checkpoint, "ckpt_dir": str(tmp_path), "merge_lora": True}
    plain = load_model(settings(**given), report=lambda words: None)

    assert_near(load(kind, **given), network(plain), kind)


def assert_near(model, base, kind):
    for name, linear in quantised(model).items():
        original = base.get_submodule(name).weight
        assert ((plain_weight(linear) - original).abs() <= farthest(kind, original)).all(), name


def test_missing_library_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr("worker.models.quantization.find_spec", lambda name: None)

    with pytest.raises(LoadError, match=r"takes torchao, which isn't installed: pip install 'baton\[quantization\]'"):
        load(Quantization.TORCHAO_INT8)


def test_model_that_would_stay_as_it_is_is_refused():
    layers = torch.nn.ModuleList([torch.nn.Linear(2, 4), torch.nn.Bilinear(2, 4, 9)])

    with pytest.raises(LoadError, match=r"would leave 9\d% of the language model's weights as they are"):
        check_worth(layers, Quantization.BNB_NF4)
