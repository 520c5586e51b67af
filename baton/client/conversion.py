"""Finds the media of conversations and prompts, and changes how they are named: to base64 for a server, or to files."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baton.client.medium import Medium, as_base64, as_file, as_uri

_TAGS = re.compile(r"<(?P<kind>img|audio|video)>(?P<address>.+?)</(?P=kind)>", re.DOTALL)
_PART_KINDS = ("image", "audio", "video")


@dataclass(frozen=True, slots=True)
class Conversion:
    """How an address is changed that stands in a tag or a list, and how one that stands in an OpenAI part."""

    in_tag: Callable[[Medium], str]
    in_part: Callable[[Medium], str]

    def message(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the message with its addresses changed; a content that is neither text nor parts stays."""
        match content := message.get("content"):
            case str():
                return message | {"content": self.text(content)}
            case list():
                return message | {"content": [self._part(part) for part in content]}
            case _:
                return message

    def text(self, text: str) -> str:
        """Return the text with the addresses in its tags changed."""
        return _TAGS.sub(lambda tag: f"<{tag['kind']}>{self.in_tag(tag['address'])}</{tag['kind']}>", text)

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        if isinstance(part.get("text"), str):
            return part | {"text": self.text(part["text"])}
        return with_address(part, self.in_part)


TO_BASE64 = Conversion(as_base64, as_uri)


def convert_to_base64(
    *,
    messages: Sequence[dict[str, Any]] | None = None,
    prompt: str | None = None,
    images: Sequence[Medium] | None = None,
) -> dict[str, Any]:
    """Return what was given, by the same names, with local files and pictures as base64.

    `images` may be clips and sounds too. A text that is no existing file (a URL, base64) stays as it is.
    """
    return _converted(messages, prompt, images, TO_BASE64)


def decode_base64(
    *,
    messages: Sequence[dict[str, Any]] | None = None,
    prompt: str | None = None,
    images: Sequence[Medium] | None = None,
    tmp_dir: str = "tmp",
) -> dict[str, Any]:
    """Return what was given, by the same names, with base64 as the paths of files in `tmp_dir`.

    URLs and existing files stay as they are. Raises ValueError for what is none of these.
    """
    os.makedirs(tmp_dir, exist_ok=True)

    def to_file(medium: Medium) -> str:
        return as_file(medium, Path(tmp_dir))

    return _converted(messages, prompt, images, Conversion(to_file, to_file))


def with_address(part: dict[str, Any], change: Callable[[Medium], str]) -> dict[str, Any]:
    """Return OpenAI's form of a part, with its address changed; `{"type": "image", "image": …}` is taken as well."""
    kind = str(part.get("type")).removesuffix("_url")
    if kind not in _PART_KINDS or part["type"] not in part:
        return part
    address = part[part["type"]]
    fields = address if isinstance(address, dict) else {"url": address}
    return {"type": f"{kind}_url", f"{kind}_url": fields | {"url": change(fields["url"])}}


def _converted(
    messages: Sequence[dict[str, Any]] | None,
    prompt: str | None,
    images: Sequence[Medium] | None,
    conversion: Conversion,
) -> dict[str, Any]:
    converted: dict[str, Any] = {}
    if messages is not None:
        converted["messages"] = [conversion.message(message) for message in messages]
    if prompt is not None:
        converted["prompt"] = conversion.text(prompt)
    if images is not None:
        converted["images"] = [conversion.in_tag(image) for image in images]
    return converted
