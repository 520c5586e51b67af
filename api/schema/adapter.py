"""The bodies of the calls that load and unload adapters, by vLLM's names."""

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from api.schema.request import Schema
from shared.fleet import ADAPTER_NAME


def _speakable(name: str) -> str:
    if not re.fullmatch(ADAPTER_NAME, name):
        raise PydanticCustomError("name", "may have letters, digits and . : / @ + - _, up to 128 of them")
    return name


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise PydanticCustomError("path", "must be an absolute path, as the workers see it")
    return path


class LoadLoraAdapter(Schema):
    """An adapter to be served beside its base model."""

    lora_name: Annotated[str, AfterValidator(_speakable)]
    """The model id that it is to have."""
    lora_path: Annotated[str, AfterValidator(_absolute)]
    """Directory of a fine-tuning run."""
    base_model: str | None = None
    """Needed where several models are served."""


class UnloadLoraAdapter(Schema):
    """An adapter to be served no longer."""

    lora_name: str
    """Its model id."""
