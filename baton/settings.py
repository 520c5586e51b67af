"""Settings of a whole deployment, and how they reach its processes."""

import json
import os
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, SecretStr, model_validator

from api.settings import ApiSettings
from baton.state import state_directory
from shared.settings import CONFIG_VARIABLE, Settings
from worker.settings import WorkerSettings


class DeploySettings(ApiSettings, WorkerSettings):
    """Serve one model on this machine: a gateway, workers, and a Redis of its own unless one is named."""

    aliases: ClassVar[dict[str, str]] = ApiSettings.aliases | WorkerSettings.aliases
    replaced: ClassVar[dict[str, str]] = WorkerSettings.replaced

    workers: int | None = Field(None, gt=0, description="Number of workers; one per visible GPU, or one, if unset.")
    keep_data: bool = Field(True, description="Let files, batches, stored responses and the queue outlive a restart.")
    data_dir: Path | None = Field(
        None, description="Where; if unset, in the user's state directory, apart for each port (--port 0 has no place)."
    )

    @model_validator(mode="after")
    def _data_have_one_place(self) -> Self:
        if self.data_dir is not None and "redis_url" in self.model_fields_set:
            raise ValueError("--data_dir is for the Redis that comes along; one named with --redis_url has its own")
        if self.data_dir is not None and not self.keep_data:
            raise ValueError("--data_dir and --keep_data false contradict each other; leave one of them out")
        return self

    def directory_of_data(self, port: int) -> Path | None:
        """Return where the embedded Redis of a deployment on this port keeps its data; None if it keeps none."""
        if not self.keep_data or self.data_dir is not None:
            return self.data_dir
        return state_directory(port) if self.port else None


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
