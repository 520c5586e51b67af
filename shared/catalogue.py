"""The model types people know by name: where their weights lie and which family serves them."""

from dataclasses import dataclass
from enum import StrEnum

from shared.job import MediaKind
from shared.tools import ToolFormat

_PICTURES = (MediaKind.IMAGE,)
_SOUND = (MediaKind.AUDIO,)
_VISION = (MediaKind.IMAGE, MediaKind.VIDEO)
_INTERNVL2 = ("internvl2", "internvl2-phi3")
_QWEN2_AUDIO = "Qwen/Qwen2-Audio-7B-Instruct"


class Family(StrEnum):
    """One file of `worker/models/` each."""

    INTERNVL2 = "internvl2"
    QWEN2_AUDIO = "qwen2_audio"
    MINICPMV = "minicpmv"
    QWEN_VL = "qwen_vl"
    YI_VL = "yi_vl"
    GENERIC = "generic"
    FAKE = "fake"


TOOL_FORMATS = {
    Family.INTERNVL2: ToolFormat.HERMES,
    Family.QWEN2_AUDIO: ToolFormat.HERMES,
    Family.MINICPMV: ToolFormat.HERMES,
    Family.QWEN_VL: ToolFormat.REACT,
    Family.YI_VL: ToolFormat.REACT,
    Family.GENERIC: ToolFormat.HERMES,
    Family.FAKE: ToolFormat.HERMES,
}
"""How each family is told of tools, unless its operator says otherwise."""


@dataclass(frozen=True, slots=True)
class ModelType:
    """One entry; hub ids are None where there is nothing to download."""

    name: str
    family: Family
    huggingface_id: str | None = None
    modelscope_id: str | None = None
    modalities: tuple[MediaKind, ...] = ()
    templates: tuple[str, ...] = ()
    """What ms-swift calls the prompt it is served with."""
    is_shipped: bool = False
    """Whether its weights come with Baton."""


def _internvl2(size: str, repository: str) -> ModelType:
    hub_id = f"OpenGVLab/{repository}"
    return ModelType(f"internvl2-{size}", Family.INTERNVL2, hub_id, hub_id, _VISION, _INTERNVL2)


def _minicpmv(version: str, repository: str, *modalities: MediaKind) -> ModelType:
    hub_ids = f"openbmb/{repository}", f"OpenBMB/{repository}"
    return ModelType(f"minicpm-v-v{version}-chat", Family.MINICPMV, *hub_ids, modalities, (f"minicpm-v-v{version}",))


MODEL_TYPES: dict[str, ModelType] = {
    entry.name: entry
    for entry in (
        _internvl2("1b", "InternVL2-1B"),
        _internvl2("2b", "InternVL2-2B"),
        _internvl2("4b", "InternVL2-4B"),
        _internvl2("8b", "InternVL2-8B"),
        _internvl2("26b", "InternVL2-26B"),
        _internvl2("40b", "InternVL2-40B"),
        _internvl2("76b", "InternVL2-Llama3-76B"),
        ModelType("qwen2-audio-7b-instruct", Family.QWEN2_AUDIO, _QWEN2_AUDIO, _QWEN2_AUDIO, _SOUND, ("qwen2-audio",)),
        _minicpmv("2_5", "MiniCPM-Llama3-V-2_5", MediaKind.IMAGE),
        _minicpmv("2_6", "MiniCPM-V-2_6", *_VISION),
        ModelType("qwen-vl-chat", Family.QWEN_VL, "Qwen/Qwen-VL-Chat", "qwen/Qwen-VL-Chat", _PICTURES, ("qwen-vl",)),
        ModelType("yi-vl-6b-chat", Family.YI_VL, "01-ai/Yi-VL-6B", "01ai/Yi-VL-6B", _PICTURES, ("yi-vl",)),
        ModelType("yi-vl-34b-chat", Family.YI_VL, "01-ai/Yi-VL-34B", "01ai/Yi-VL-34B", _PICTURES, ("yi-vl",)),
        ModelType("demo", Family.INTERNVL2, modalities=_VISION, templates=_INTERNVL2, is_shipped=True),
        ModelType("generic", Family.GENERIC),
        ModelType("fake", Family.FAKE),
    )
}


def find_by_hub_id(model_id: str) -> ModelType | None:
    """The entry whose hub id this is, whatever its case; None if nobody knows it."""
    wanted = model_id.lower()
    for entry in MODEL_TYPES.values():
        if wanted in {(entry.huggingface_id or "").lower(), (entry.modelscope_id or "").lower()} - {""}:
            return entry
    return None
