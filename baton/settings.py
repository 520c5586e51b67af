"""Settings of a whole deployment, and how they reach its processes."""

import json
import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr

from api.settings import ApiSettings
from shared.settings import CONFIG_VARIABLE, Settings
from worker.settings import WorkerSettings


class DeploySettings(ApiSettings, WorkerSettings):
    """Serve one model on this machine: a gateway, workers, and a Redis of its own unless one is named."""

    aliases: ClassVar[dict[str, str]] = ApiSettings.aliases | WorkerSettings.aliases
    replaced: ClassVar[dict[str, str]] = WorkerSettings.replaced

    workers: int | None = Field(None, gt=0, description="Number of workers; one per visible GPU, or one, if unset.")


def environment(settings: Settings, reader: type[Settings]) -> dict[str, str]:
    """Return the environment in which `reader` finds these settings: what was said on purpose, and no more."""
    inherited = {name: value for name, value in os.environ.items() if name != CONFIG_VARIABLE}
    named = settings.model_fields_set & reader.model_fields.keys()
    said = {name: value for name in named if (value := getattr(settings, name)) is not None}
    return inherited | {f"BATON_{name.upper()}": _text(value) for name, value in said.items()}


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, str | Path) else json.dumps(value)
