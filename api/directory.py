"""The one directory of this machine whose files clients may name as media, where the operator allowed one."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from api.media import MediaSource
from shared.errors import InvalidMedia

MAX_ADDRESS_LENGTH = 4096
"""Longer than any path; what is longer is base64."""
_FILE_URLS = ("file:///", "file://localhost/")


class MediaDirectory:
    """Names are followed to their ends, through links and `..`, before they are compared with the directory."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve(strict=True)

    def find(self, address: str) -> Path | None:
        """Return the file inside the directory that a path or file: URL names; None if it names none."""
        if len(address) > MAX_ADDRESS_LENGTH:
            return None
        with suppress(OSError, ValueError, RuntimeError):  # no such file, a null character, a loop of links
            path = (self._root / _path(address)).resolve(strict=True)
            if path.is_relative_to(self._root) and path.is_file():
                return path
        return None

    def read(self, path: Path, source: MediaSource, max_bytes: int) -> bytes:
        """Return a found file's bytes; raises InvalidMedia if it is larger, or isn't there any more."""
        try:
            with open(path, "rb", opener=self._open) as file:
                content = file.read(max_bytes + 1)
        except OSError:
            raise InvalidMedia(f"The {source.kind} is a file that can't be read.", param=source.param) from None
        if len(content) > max_bytes:
            raise InvalidMedia(f"The {source.kind} is larger than {max_bytes} bytes.", param=source.param)
        if not content:
            raise InvalidMedia(f"The {source.kind} is empty.", param=source.param)
        return content

    def _open(self, path: str, flags: int) -> int:
        """Open what was found, name by name: what became a link or a pipe meanwhile is none, and isn't waited for."""
        folder = os.open(self._root, os.O_DIRECTORY)
        try:
            *names, last = Path(path).relative_to(self._root).parts
            for name in names:
                inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            descriptor = os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{path} is not a file")
        return descriptor


def _path(address: str) -> str:
    for prefix in _FILE_URLS:
        if address[: len(prefix)].lower() == prefix:
            return unquote(address[len(prefix) - 1 :], errors="strict")
    return address
