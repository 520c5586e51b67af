"""Settings as frozen values, read once: command line, then BATON_… variables, then a YAML file, then defaults."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeAlias, get_origin

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from shared.address import check_address
from shared.logs import LogFormat

CONFIG_VARIABLE = "BATON_CONFIG"
"""Names the optional YAML file; `--config` does the same."""

_config_file: ContextVar[str | None] = ContextVar("config_file", default=None)


def _named(value: Any) -> Any:
    """`a=x b=y`, as it stands in a variable, as a list, or as JSON → {a: x, b: y}."""
    if isinstance(value, str):
        value = json.loads(value) if value.startswith(("{", "[")) else value.split()
    if not isinstance(value, list | tuple):
        return value
    pairs = [str(entry).partition("=") for entry in value]
    if wrong := [name for name, separator, path in pairs if not (name and separator and path)]:
        raise ValueError(f"{wrong[0]!r} is not of the form name=value")
    named = {name: path for name, _, path in pairs}
    if len(named) < len(pairs):
        raise ValueError("two of one name")
    return named


Named: TypeAlias = Annotated[dict[str, str], NoDecode, BeforeValidator(_named)]
"""Values by name: `name=value …` on the command line, repeated or not, and in a variable; a mapping in YAML."""


def _listed(value: Any) -> Any:
    """`a b`, as it stands in a variable, or JSON → (a, b)."""
    if isinstance(value, str):
        return json.loads(value) if value.startswith("[") else value.split()
    return value


Listed: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
"""Several values: listed or repeated on the command line, divided by blanks in a variable, a list in YAML."""


class Options(BaseSettings):
    """How a command is told what to do: each field is an option, a variable and a key of the YAML file."""

    model_config = SettingsConfigDict(env_prefix="BATON_", frozen=True, extra="forbid")

    aliases: ClassVar[dict[str, str]] = {}
    """Other spellings of an option, as people know them from elsewhere: spelling → field."""
    replaced: ClassVar[dict[str, str]] = {}
    """Options that people know from elsewhere and that are said in another way here: spelling → that way."""

    @classmethod
    def read(cls, arguments: Sequence[str] | None = None) -> Self:
        """Read the settings of this process; a mistake is told in one line each and ends it with status 2."""
        parser = cls.parser()
        given = vars(parser.parse_args([_underscored(a) for a in (sys.argv[1:] if arguments is None else arguments)]))
        token = _config_file.set(given.pop("config", None))
        try:
            return cls(**given)
        except (ValidationError, FileNotFoundError) as error:
            parser.error(_explain(error))
        finally:
            _config_file.reset(token)

    @classmethod
    def parser(cls) -> argparse.ArgumentParser:
        """The command line made of the fields: one option each, dashes and underscores the same."""
        variable = f"BATON_{next(iter(cls.model_fields)).upper()}"
        parser = argparse.ArgumentParser(
            description=cls.__doc__,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            epilog=f"Each option is also a variable, as {variable}, and a key of the YAML file.",
        )
        parser.add_argument("--config", metavar="FILE", help="YAML file with any of these options.")
        for name, field in cls.model_fields.items():
            spellings = [f"--{name}", *(f"--{alias}" for alias, target in cls.aliases.items() if target == name)]
            parser.add_argument(*spellings, dest=name, help=_help(field), **_shape(name, field))
        for name, way in cls.replaced.items():
            parser.add_argument(f"--{name}", type=_refusal(way), help=argparse.SUPPRESS)
        return parser

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the YAML file under the environment; one file may serve several processes."""
        path = _config_file.get() or os.environ.get(CONFIG_VARIABLE)
        return init_settings, env_settings, *([_YamlSource(settings_cls, path)] if path else [])


class Settings(Options):
    """What every process of a deployment needs; each process's own class adds to it."""

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis that carries jobs and events (redis://, rediss:// or redis+sentinel://).",
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least severe level to log.")
    log_format: LogFormat = Field("text", description="Log lines as text for people, or as json for machines.")

    @field_validator("redis_url")
    @classmethod
    def _names_a_redis(cls, url: SecretStr) -> SecretStr:
        check_address(url.get_secret_value())
        return url


class _YamlSource(YamlConfigSettingsSource):
    """The YAML file, of which each process takes the keys it knows."""

    def __init__(self, settings_cls: type[BaseSettings], path: str) -> None:
        if not os.path.exists(path):
            raise FileNotFoundError(f"config file {path} does not exist")
        super().__init__(settings_cls, yaml_file=path)

    def __call__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__call__().items() if key in self.settings_cls.model_fields}


def _underscored(argument: str) -> str:
    """`--max-model-len=5` → `--max_model_len=5`; values keep their dashes."""
    if not argument.startswith("--"):
        return argument
    name, separator, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + separator + value


def _shape(name: str, field: FieldInfo) -> dict[str, Any]:
    if field.annotation is bool:
        return {"nargs": "?", "const": "true", "metavar": "true|false"}
    if get_origin(field.annotation) is dict:
        return {"nargs": "+", "action": "extend", "metavar": "NAME=VALUE"}
    if get_origin(field.annotation) is tuple:
        return {"nargs": "+", "action": "extend", "metavar": name.upper()}
    return {"metavar": name.upper()}


def _help(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, {}, ()) or isinstance(default, SecretStr) else f" [{default}]"
    return f"{field.description}{shown}".replace("%", "%%")


def _refusal(way: str) -> Callable[[str], NoReturn]:
    def refuse(value: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"say it with {way}")

    return refuse


def _explain(error: ValidationError | FileNotFoundError) -> str:
    if isinstance(error, FileNotFoundError):
        return str(error)
    return "; ".join(
        ": ".join([*("--" + str(name) for name in e["loc"]), e["msg"].removeprefix("Value error, ")])
        for e in error.errors(include_input=False)
    )
