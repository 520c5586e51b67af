"""LoRA directories: the golden ones are proven elsewhere; here is what differs from run to run, and what is refused."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cases import INTERNVL2
from tests.worker.models.golden import golden_model, settings
from worker.models.family import LoadError
from worker.models.registry import load_model
from worker.models.weights import open_weights


@pytest.fixture
def adapter(tmp_path):
    """A copy of the golden adapter, to be altered."""
    return shutil.copytree(INTERNVL2 / "adapter", tmp_path / "checkpoint-10")


def alter(adapter, **changes):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(adapter, **given):
    return load_model(settings(ckpt_dir=str(adapter), merge_lora=True, **given), report=lambda words: None)


def first_weight(model):
    return model.runner._model.model.language_model.layers[0].self_attn.q_proj.weight


def change(model):
    return first_weight(model) - first_weight(golden_model())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "adapters of type IA3"),
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias=all"),
        ({"modules_to_save": ["mlp1"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias=lora_only"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused(adapter, changes, message):
    alter(adapter, **changes)

    with pytest.raises(LoadError, match=message):
        load(adapter)


def test_rank_stabilised_adapters_have_their_own_scale(adapter):
    plain = change(load(adapter))
    alter(adapter, use_rslora=True)

    torch.testing.assert_close(change(load(adapter)), plain * math.sqrt(8), atol=1e-5, rtol=1e-4)


def test_alpha_of_single_layers_is_theirs(adapter):
    plain = change(load(adapter))
    alter(adapter, alpha_pattern={r"language_model\.model\.layers\.\d+\.attention\.wqkv": 8, "wo": 1})

    torch.testing.assert_close(change(load(adapter)), plain / 4, atol=1e-5, rtol=1e-4)


def test_adapter_of_another_model_is_refused(adapter):
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("language_model", "transformer"): tensor for name, tensor in tensors.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")

    with pytest.raises(LoadError, match="which the base model lacks"):
        load(adapter)


def test_adapter_saved_by_torch_loads_as_well(adapter):
    expected = change(load(adapter))
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()

    assert change(load(adapter)).equal(expected)


def test_adapter_in_a_subfolder_loads_as_well(adapter):
    (adapter / "default").mkdir()
    for path in adapter.glob("adapter_*"):
        path.rename(adapter / "default" / path.name)

    assert change(load(adapter)).abs().max() > 0


def test_pickled_code_in_weights_is_not_run(adapter, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"a": Evil()}, adapter / "adapter_model.bin")

    with pytest.raises(LoadError, match="can't be read"):
        load(adapter)
    assert not (tmp_path / "ran").exists()


def test_merged_checkpoint_serves_by_itself(adapter, tmp_path):
    """As `swift merge-lora` leaves it: all weights, and what the run recorded."""
    merged = shutil.copytree(INTERNVL2 / "checkpoint", tmp_path / "checkpoint-10-merged")
    weights = open_weights(merged, adapter, report=lambda words: None)
    save_file({name: weight[...].contiguous() for name, weight in weights.items()}, merged / "model.safetensors")
    shutil.copy(adapter / "sft_args.json", merged)

    model = load_model(settings(model_id_or_path=None, ckpt_dir=str(merged)), report=lambda words: None)

    assert first_weight(model).equal(first_weight(load(adapter)))


def test_system_text_of_the_training_is_kept(adapter):
    arguments = json.loads((adapter / "sft_args.json").read_text("utf-8"))
    (adapter / "sft_args.json").write_text(json.dumps(arguments | {"system": "You are a pirate."}))

    assert load(adapter).system == "You are a pirate."
