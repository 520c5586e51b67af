"""Where a model's weights lie: a local directory, or a hub they are downloaded from once.

It knows no family; what a family finds in the directory is its own business.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.catalogue import ModelType, find_by_hub_id
from shared.fleet import ADAPTER_NAME
from shared.job import SamplingParams
from worker.fingerprint import digest_of
from worker.models.family import LoadError
from worker.settings import WorkerSettings

DEFAULT_ADAPTER = "default-lora"
"""What the LoRA of `--ckpt_dir` is called, as `swift deploy` calls it."""
SHIPPED = Path(__file__).parent / "shipped"
"""Where the weights lie that come with Baton."""
_WANTED = ["*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
"""Weights, configurations, tokenizers and chat templates; code never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What `--model_id_or_path`, `--ckpt_dir` and `--merge_lora` come to, on this machine's disk."""

    directory: Path
    """The full checkpoint."""
    adapter: Path | None = None
    """The LoRA directory to merge into it."""
    system: str | None = None
    """The system text its weights were fine-tuned with, where that is recorded."""

    @property
    def digest(self) -> str:
        """A hash of what is loaded."""
        return digest_of(self.directory, *([self.adapter] if self.adapter else []))


def locate(settings: WorkerSettings, model_type: ModelType, report: Callable[[str], None]) -> Checkpoint:
    """Find the weights, downloading them if need be; raises LoadError if they can't be had."""
    if settings.ckpt_dir is None:
        _check_merge(settings, None)
        return Checkpoint(directory=_base_directory(settings.model_id_or_path, settings, model_type, report))
    tuned, arguments = Path(settings.ckpt_dir), read_training_arguments(settings.ckpt_dir)
    system = arguments.get("system") or None
    if (adapter := find_adapter(tuned)) is None:
        _check_merge(settings, tuned)
        return Checkpoint(directory=_full_checkpoint(tuned), system=system)
    directory = _base_directory(settings.model_id_or_path or read_base(tuned), settings, model_type, report)
    if not settings.merge_lora:  # the adapter is loaded beside it
        return Checkpoint(directory=directory)
    return Checkpoint(directory=directory, adapter=adapter, system=system)


def own_adapters(settings: WorkerSettings) -> dict[str, str]:
    """Return the adapters a worker is started with, absolute paths by name; raises LoadError for two of one name."""
    named = dict(settings.lora_modules)
    if settings.ckpt_dir is not None and not settings.merge_lora and find_adapter(Path(settings.ckpt_dir)) is not None:
        if DEFAULT_ADAPTER in named:
            raise LoadError(f"--ckpt_dir is served as {DEFAULT_ADAPTER}: give that one of --lora_modules another name")
        named = {DEFAULT_ADAPTER: settings.ckpt_dir, **named}
    if wrong := [name for name in named if not re.fullmatch(ADAPTER_NAME, name)]:
        raise LoadError(f"{wrong[0]!r} can't be an adapter's name: letters, digits and . : / @ + - _ can, up to 128")
    return {name: str(Path(path).absolute()) for name, path in named.items()}


def find_adapter(directory: Path) -> Path | None:
    """Return where the LoRA lies in a fine-tuning run's directory; None if it is a full checkpoint."""
    return next((d for d in (directory, directory / "default") if (d / "adapter_config.json").exists()), None)


def read_training_arguments(ckpt_dir: str) -> dict[str, Any]:
    """Return what the fine-tuning run recorded of itself; empty if it recorded nothing."""
    for name in ("sft_args.json", "args.json"):
        if (path := Path(ckpt_dir) / name).exists():
            return read_json(path)
    return {}


def read_base(ckpt_dir: Path) -> str | None:
    """Return the hub id or directory of the model that a LoRA says it was trained on; None if it doesn't say."""
    arguments = read_training_arguments(str(ckpt_dir))
    if named := arguments.get("model_id_or_path") or arguments.get("model"):
        return str(named)
    adapter = find_adapter(ckpt_dir)
    return read_json(adapter / "adapter_config.json").get("base_model_name_or_path") if adapter else None


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object's content; raises LoadError if it isn't one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise LoadError(f"{path} isn't a JSON object")
    return content


def read_sampling(directory: Path) -> SamplingParams:
    """Return the checkpoint's generation defaults: greedy unless it says that it samples."""
    path = directory / "generation_config.json"
    config = read_json(path) if path.exists() else {}
    defaults = {"repetition_penalty": 1.0}  # transformers' own
    if config.get("do_sample"):
        defaults |= {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "min_p": 0.0}
    return SamplingParams(**defaults | {name: config[name] for name in defaults if config.get(name) is not None})


def check_context(asked: int | None, trained: int) -> None:
    """Raise LoadError if a longer context is asked for than the model was trained on, in tokens."""
    if asked is not None and asked > trained:
        raise LoadError(f"--max_model_len {asked} is more than the model's context of {trained} tokens")


def _check_merge(settings: WorkerSettings, full: Path | None) -> None:
    if settings.merge_lora:
        found = f"{full} is a full checkpoint already" if full else "there is no --ckpt_dir"
        raise LoadError(f"--merge_lora merges the LoRA of --ckpt_dir, and {found}: leave it out")


def check_hub_id(name: str) -> None:
    """Raise LoadError if a name, which is no directory, can't be a hub id either."""
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise LoadError(
            f"{name} is neither a directory nor a hub id such as OpenGVLab/InternVL2-2B: "
            "name the model with --model_id_or_path"
        )


def _base_directory(
    name: str | None, settings: WorkerSettings, model_type: ModelType, report: Callable[[str], None]
) -> Path:
    if name and Path(name).is_dir():
        return _full_checkpoint(Path(name))
    if not name and model_type.is_shipped:
        return SHIPPED / model_type.name
    if known := find_by_hub_id(name) if name else model_type:  # runs may record the other hub's id
        name = known.huggingface_id if settings.use_hf else known.modelscope_id
    if name is None:
        raise LoadError(f"{model_type.name} has no weights to download: name a directory with --model_id_or_path")
    check_hub_id(name)
    return _full_checkpoint(_download(name, settings.use_hf, report))


def _full_checkpoint(path: Path) -> Path:
    """Return the path, if a checkpoint is there that has all its bits."""
    if find_adapter(path) is not None:
        raise LoadError(f"{path} is a LoRA directory: name it with --ckpt_dir")
    if not (path / "config.json").exists():
        raise LoadError(f"{path} is not a checkpoint: it has no config.json")
    _check_bits(read_json(path / "config.json"), path)
    return path


def _check_bits(config: dict[str, Any], path: Path) -> None:
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]  # language models have their own
    if (given := next((part["quantization_config"] for part in parts if "quantization_config" in part), None)) is None:
        return
    method = given.get("quant_method", "its own way") if isinstance(given, dict) else "its own way"
    raise LoadError(
        f"{path} is quantised already ({method}), and such checkpoints aren't served: "
        "take the one that it was made from, and add --quantization"
    )


def _download(model_id: str, use_hf: bool, report: Callable[[str], None]) -> Path:
    hub, other = ("Hugging Face", "without --use_hf") if use_hf else ("ModelScope", "with --use_hf")
    report(f"fetching {model_id} from {hub}")
    try:
        return Path(_fetch_from_huggingface(model_id) if use_hf else _fetch_from_modelscope(model_id))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise LoadError(
            f"{hub} did not give {model_id} ({reason}); try again to resume, "
            f"name a local directory with --model_id_or_path, or use the other hub ({other})"
        ) from error


def _fetch_from_huggingface(model_id: str) -> str:
    from httpx2 import HTTPError  # imported late: the hub's libraries read their variables when imported
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(model_id, allow_patterns=_WANTED)
    except HTTPError as error:
        raise ConnectionError(str(error)) from error


def _fetch_from_modelscope(model_id: str) -> str:
    from modelscope import snapshot_download
    from modelscope_hub.errors import CacheNotFound, HubError, NetworkError

    try:
        return str(snapshot_download(model_id, allow_patterns=_WANTED))
    except NetworkError as error:
        with suppress(CacheNotFound):  # what was downloaded before serves without the network
            return str(snapshot_download(model_id, allow_patterns=_WANTED, local_files_only=True))
        raise error
    except HubError as error:
        raise ConnectionError(str(error)) from error
