"""The golden cases: what the original authors' code gives for tiny checkpoints in the original layouts."""

import json
from dataclasses import dataclass
from pathlib import Path

from shared.job import MediaKind, MediaPart, Message, Role, TextPart

GOLDEN = Path(__file__).parent / "golden"
INTERNVL2 = GOLDEN / "internvl2-2b"
QWEN_VL = GOLDEN / "qwen-vl-chat"
YI_VL = GOLDEN / "yi-vl-6b-chat"
QWEN2_AUDIO = GOLDEN / "qwen2-audio-7b-instruct"
MINICPMV = {version: GOLDEN / f"minicpm-v-v{version.replace('.', '_')}-chat" for version in ("2.5", "2.6")}


@dataclass(frozen=True)
class Case:
    """One conversation and the original's answer to it; `facts` is the case's JSON."""

    name: str
    facts: dict
    folder: Path

    @property
    def tensors_path(self):
        return self.folder / "cases" / f"{self.name}.safetensors"

    @property
    def num_segments(self):
        """Frames of the clip, where there is one."""
        return next((m["segments"] for m in self.facts["media"] if "segments" in m), 8)

    def messages(self):
        """The conversation as the worker gets it, and the bytes of its media."""
        media = {}
        messages = tuple(self._message(m, f"messages[{i}]", media) for i, m in enumerate(self.facts["messages"]))
        return messages, media

    def _message(self, message, param, media):
        content = message["content"]
        listed = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts = [self._part(part, f"{param}.content[{i}]", media) for i, part in enumerate(listed)]
        return Message(Role(message["role"]), tuple(parts))

    def _part(self, part, param, media):
        if part["type"] == "text":
            return TextPart(part["text"])
        path = part[part["type"]]["url"]
        medium = MediaPart(MediaKind(part["type"].removesuffix("_url")), path, param)
        media[medium] = (self.folder / path).read_bytes()
        return medium


def read_cases(folder):
    """Every case of one golden set, by name."""
    paths = sorted((folder / "cases").glob("*.json"))
    return {path.stem: Case(path.stem, json.loads(path.read_text("utf-8")), folder) for path in paths}
