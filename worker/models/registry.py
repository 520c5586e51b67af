"""Which family serves what was asked for, and the way to it; imports a family only when it is needed."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from shared.catalogue import MODEL_TYPES, Family, ModelType, find_by_hub_id
from worker.checkpoint import check_hub_id, find_adapter, read_base, read_json, read_training_arguments
from worker.models.family import LoadError, Model
from worker.settings import WorkerSettings

_INTERNVL2_SIZES = {
    ("Qwen2ForCausalLM", 896): "1b",
    ("InternLM2ForCausalLM", 2048): "2b",
    ("Phi3ForCausalLM", 3072): "4b",
    ("InternLM2ForCausalLM", 4096): "8b",
    ("InternLM2ForCausalLM", 6144): "26b",
    ("LlamaForCausalLM", 7168): "40b",
    ("LlamaForCausalLM", 8192): "76b",
}
"""(Architecture, width) of the language model of each published size."""
_YI_34B_WIDTH = 7168


def load_model(settings: WorkerSettings, report: Callable[[str], None]) -> Model:
    """Load the model the settings ask for, telling how far it is in short lines; raises LoadError if it can't be."""
    model_type = find_model_type(settings)
    family = import_family(model_type.family)
    model: Model = family.load(settings.model_copy(update={"model_type": model_type.name}), report)
    return model


def import_family(family: Family) -> Any:
    """Return the family's module, which brings torch and transformers along unless it is the fake one's."""
    if family is not Family.FAKE:
        import_module("worker.models.companions")  # before anything imports transformers
    return import_module(f"worker.models.{family}")


def find_model_type(settings: WorkerSettings) -> ModelType:
    """Return the catalogue's entry for what the settings name; raises LoadError if there is none."""
    if settings.model_type is not None:
        return _named(settings.model_type)
    if settings.ckpt_dir is not None:
        return _of_tuned(settings.ckpt_dir, settings.model_id_or_path)
    return of_reference(settings.model_id_or_path or "")


def served_name(settings: WorkerSettings, model_type: ModelType) -> str:
    """Return the id clients ask for; what no name is known for is called as its directory or repository."""
    if settings.served_model_name is not None:
        return settings.served_model_name
    reference = settings.ckpt_dir or settings.model_id_or_path
    if model_type.family is not Family.GENERIC or reference is None:
        return model_type.name
    return Path(reference).resolve().name


def _named(name: str) -> ModelType:
    if (entry := MODEL_TYPES.get(name)) is not None:
        return entry
    close = get_close_matches(name, MODEL_TYPES, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise LoadError(f"{name} is not a model type; {hint}known are {', '.join(MODEL_TYPES)}")


def _of_tuned(ckpt_dir: str, base: str | None) -> ModelType:
    if not Path(ckpt_dir).is_dir():
        raise LoadError(f"--ckpt_dir {ckpt_dir} is not a directory")
    arguments = read_training_arguments(ckpt_dir)
    if (name := arguments.get("model_type")) in MODEL_TYPES:
        return _with_template(MODEL_TYPES[name], ckpt_dir, arguments)
    if find_adapter(Path(ckpt_dir)) is None:
        return _with_template(of_reference(ckpt_dir), ckpt_dir, arguments)
    if reference := base or read_base(Path(ckpt_dir)):
        return _with_template(of_reference(reference), ckpt_dir, arguments)
    raise LoadError(f"{ckpt_dir} doesn't say which model it was trained on: add --model_type or --model_id_or_path")


def _with_template(entry: ModelType, ckpt_dir: str, arguments: dict[str, Any]) -> ModelType:
    """Return the entry, whose prompts are to be those of the training; a generic model's are its own template's."""
    trained = arguments.get("template_type") or arguments.get("template")
    if entry.family is Family.GENERIC or trained is None or _plain(trained) in map(_plain, entry.templates):
        return entry
    raise LoadError(
        f"{ckpt_dir} was trained with the template {trained}, and {entry.name} is served with {entry.templates[0]}: "
        f"add --model_type {entry.name} to serve it with that"
    )


def _plain(template: str) -> str:
    """`minicpm-v-v2_6`, as ms-swift 2 wrote it, and `minicpmv2_6`, as 3 and 4 do → one spelling."""
    return template.lower().replace("-v-v", "v").replace("-", "_")


def of_reference(reference: str) -> ModelType:
    """Return the entry of a hub id or of a local directory."""
    if not Path(reference).is_dir():
        if (entry := find_by_hub_id(reference)) is not None:
            return entry
        check_hub_id(reference)
        return MODEL_TYPES["generic"]
    config = read_json(Path(reference) / "config.json")
    match config.get("model_type"):
        case "internvl_chat":
            return _internvl2(config.get("llm_config") or {})
        case "qwen" if "visual" in config:  # without it, a model of text alone
            return MODEL_TYPES["qwen-vl-chat"]
        case "llava" if "mm_vision_tower" in config:  # transformers' Llava has another name for it
            return MODEL_TYPES[f"yi-vl-{'34b' if config.get('hidden_size') == _YI_34B_WIDTH else '6b'}-chat"]
        case "qwen2_audio":
            return MODEL_TYPES["qwen2-audio-7b-instruct"]
        case "minicpmv":
            return _minicpmv(str(config.get("version")))
        case _:
            return MODEL_TYPES["generic"]


def _minicpmv(version: str) -> ModelType:
    """Return the entry of a version, which the original writes now as a string and now as a number."""
    if (entry := MODEL_TYPES.get(f"minicpm-v-v{version.replace('.', '_')}-chat")) is None:
        raise LoadError(f"the checkpoint is MiniCPM-V of version {version}; served are 2.5 and 2.6")
    return entry


def _internvl2(text: dict[str, object]) -> ModelType:
    """Return the published size, or for another width the smallest one with the same language model."""
    architecture, width = (text.get("architectures") or [None])[0], text.get("hidden_size")  # type: ignore[index]
    sizes = [size for (known, _), size in _INTERNVL2_SIZES.items() if known == architecture]
    if not sizes:
        raise LoadError(f"the checkpoint's language model is {architecture}, which InternVL2 isn't served with")
    return MODEL_TYPES[f"internvl2-{_INTERNVL2_SIZES.get((str(architecture), width), sizes[0])}"]  # type: ignore[arg-type]
