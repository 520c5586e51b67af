"""Who may ask, and how much: the API keys, by the hashes that a file keeps, read again whenever the file changes."""

import hashlib
import hmac
import logging
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

logger = logging.getLogger(__name__)

MAX_SHARE = 1000
"""Most requests at once that a limit of one key can allow; they are counted one by one."""


_SHARES = ("max_concurrent", "max_queued")


class KeyFileError(ValueError):
    """The file of keys can't be used; the message says where and why."""


class Caller(BaseModel):
    """On whose behalf a request is made, and what it may have; what is unset is unlimited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    """What logs and jobs call the caller, never the key; nobody has a name where no key is set."""
    requests_per_minute: int | None = Field(None, gt=0, le=60_000)
    max_concurrent: int | None = Field(None, gt=0, le=MAX_SHARE)
    """Most accepted requests that have not ended."""
    max_queued: int | None = Field(None, gt=0, le=MAX_SHARE)
    """Most requests that wait for a worker."""
    models: tuple[str, ...] | None = None
    """The models and adapters it may ask; None is all."""
    min_priority: int | None = None
    """The most urgent priority it may ask for; lower is more urgent."""
    manages_adapters: bool = False
    """Whether it may load and unload adapters."""

    @property
    def is_limited(self) -> bool:
        """Whether anything has to be counted."""
        return not (self.requests_per_minute is self.max_concurrent is self.max_queued is None)

    @property
    def in_background(self) -> Self:
        """The same where nobody waits for an answer: of each share that has two places, one is left to who does."""
        spared = {name: max(share - 1, 1) for name in _SHARES if (share := getattr(self, name)) is not None}
        return self.model_copy(update=spared)


class ApiKey(Caller):
    """One entry of the file."""

    name: str = Field(pattern=r"^[\w.@+-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


ANYBODY = Caller()
"""Whoever asks where no key is set."""
OPERATOR = Caller(name="api_key", manages_adapters=True)
"""Whoever has the key of `--api_key`."""

OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/metrics"})
"""What whoever watches the process may ask without a key; every other path there is or will be needs one."""

_KEYS = TypeAdapter(list[ApiKey])


class KeyRing:
    """Knows every key; raises KeyFileError if the file can't be read at the start, and later keeps what it had."""

    def __init__(self, api_key: SecretStr | None, path: Path | None) -> None:
        self._operator = None if api_key is None else hash_key(api_key.get_secret_value().encode())
        self._path = path
        self._keys = [] if path is None else read_keys(path)
        self._stamp = self._read_stamp()

    @property
    def is_open(self) -> bool:
        """Whether everybody may ask."""
        return self._operator is None and self._path is None

    def find(self, given: bytes) -> Caller | None:
        """Return whose key this is; the time it takes says nothing of the keys."""
        self._follow_file()
        digest, found = hash_key(given), None
        if self._operator is not None and hmac.compare_digest(digest, self._operator):
            found = OPERATOR
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    def named(self, name: str) -> Caller | None:
        """Return the caller of that name, if the name still has a key."""
        self._follow_file()
        if not name:
            return ANYBODY if self.is_open else None
        if name == OPERATOR.name and self._operator is not None:
            return OPERATOR
        return next((key for key in self._keys if key.name == name), None)

    def _follow_file(self) -> None:
        if self._path is None or (stamp := self._read_stamp()) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
            logger.info("read %d API keys again", len(self._keys))
        except KeyFileError as error:
            logger.error("the API keys stay as they were: %s", error)

    def _read_stamp(self) -> tuple[int, ...] | None:
        """Return what tells one version of the file from another; None while it is away."""
        try:
            status = None if self._path is None else self._path.stat()
        except OSError:
            return None
        return None if status is None else (status.st_ino, status.st_mtime_ns, status.st_size)


def hash_key(key: bytes) -> str:
    """Return what the file keeps of a key. Keys are long and random, so that one round is enough."""
    return hashlib.sha256(key).hexdigest()


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys of a file, or raise KeyFileError."""
    try:
        keys = _KEYS.validate_python(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} can't be read: {error}") from None
    except yaml.YAMLError:  # its message shows the line, and so perhaps a key
        raise KeyFileError(f"{path} is neither YAML nor JSON") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise KeyFileError(f"{path}: {where or 'the whole'}: {first['msg']}") from None
    names = [key.name for key in keys]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise KeyFileError(f"{path}: two keys are named {twice[0]}")
    return keys
