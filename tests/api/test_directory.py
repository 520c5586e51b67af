"""Files of the gateway's machine: those under the allowed directory, however they are spelled, and no others."""

import asyncio
import base64
import os

import pytest

from api.directory import MediaDirectory
from api.fetch import MediaFetcher
from api.media import MediaSource
from api.network import CheckedNetwork
from api.settings import ApiSettings
from shared.errors import InvalidMedia
from shared.job import MediaKind

SOUND, SECRET = b"RIFF a sound of some length", b"not for clients"


@pytest.fixture
def root(tmp_path):
    """The allowed directory, links in and out of it, and a secret beside it."""
    (tmp_path / "secret").write_bytes(SECRET)
    root = tmp_path / "media"
    (root / "sub").mkdir(parents=True)
    (root / "a b%.wav").write_bytes(SOUND)
    (root / "empty").touch()
    (root / "out").symlink_to(tmp_path)
    (root / "out.wav").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to(root / "loop")
    (root / "sub" / "in.wav").symlink_to(root / "a b%.wav")
    os.mkfifo(root / "pipe")
    (tmp_path / "media-private").mkdir()
    (tmp_path / "media-private" / "secret").write_bytes(SECRET)
    return root


async def fetch(root, address, **options):
    settings = ApiSettings(allowed_local_media_path=root, **options)
    async with MediaFetcher(settings, CheckedNetwork(lambda _: False)) as fetcher:
        async with asyncio.timeout(10):
            return (await fetcher.fetch([MediaSource(MediaKind.AUDIO, address, "audios[0]")]))[address]


@pytest.mark.parametrize(
    "address",
    [
        "a b%.wav",
        "{root}/a b%.wav",
        "file://{root}/a%20b%25.wav",
        "FILE://localhost{root}/a%20b%25.wav",
        "sub/../a b%.wav",
        "sub/in.wav",
        "{root}/out/media/a b%.wav",
    ],
)
async def test_file_inside_is_read_however_it_is_named(root, address):
    assert await fetch(root, address.format(root=root)) == SOUND


@pytest.mark.parametrize(
    "address",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "{root}/../secret",
        "../secret",
        "sub/../../secret",
        "file://{root}/../secret",
        "file://{root}/%2e%2e/secret",
        "file://{root}/%2e%2e%2fsecret",
        "file://{root}/%252e%252e/secret",
        "file://elsewhere{root}/a%20b%25.wav",
        "file://{root}/%ff",
        "file:{root}/a%20b%25.wav",
        "out/secret",
        "out.wav",
        "{root}-private/secret",
        "~/secret",
        "loop",
        "pipe",
        "sub",
        "{root}",
        ".",
        "",
        "missing.wav",
        "a b%.wav\0",
        "ä" * 300,
    ],
)
async def test_whatever_leads_elsewhere_is_refused_alike(root, address):
    with pytest.raises(InvalidMedia) as caught:
        await fetch(root, address.format(root=root))

    assert caught.value.param == "audios[0]"
    assert str(root) not in caught.value.message
    assert "nor a file that this server may read" in caught.value.message


@pytest.mark.parametrize("swapped", ["inner", "inner/deep", "inner/deep/a.wav"])
def test_link_that_is_put_there_after_the_check_is_not_followed(root, tmp_path, swapped):
    for folder in (root, tmp_path / "elsewhere"):
        (folder / "inner" / "deep").mkdir(parents=True)
        (folder / "inner" / "deep" / "a.wav").write_bytes(SOUND if folder == root else SECRET)
    directory, medium = MediaDirectory(root), MediaSource(MediaKind.AUDIO, "", "audios[0]")
    path = directory.find("inner/deep/a.wav")
    assert directory.read(path, medium, 1000) == SOUND

    (root / swapped).rename(root / "gone")
    (root / swapped).symlink_to(tmp_path / "elsewhere" / swapped)

    with pytest.raises(InvalidMedia, match="can't be read"):
        directory.read(path, medium, 1000)


async def test_limit_on_bytes_holds_for_files(root):
    assert await fetch(root, "a b%.wav", max_media_bytes=len(SOUND)) == SOUND
    with pytest.raises(InvalidMedia, match=f"larger than {len(SOUND) - 1} bytes"):
        await fetch(root, "a b%.wav", max_media_bytes=len(SOUND) - 1)
    with pytest.raises(InvalidMedia, match="is empty"):
        await fetch(root, "empty")


async def test_base64_that_looks_like_a_path_is_still_base64(root):
    content = b"\xff\xd8\xff" + bytes(60)  # a JPEG's base64 begins with a slash
    encoded = base64.b64encode(content).decode()
    assert encoded.startswith("/9j/")

    assert await fetch(root, encoded) == content


async def test_no_file_is_read_unless_a_directory_is_allowed(root):
    with pytest.raises(InvalidMedia, match="nor a file that this server may read"):
        await fetch(None, f"{root}/a b%.wav")


def test_directory_has_to_exist(root):
    with pytest.raises(ValueError, match="allowed_local_media_path"):
        ApiSettings(allowed_local_media_path=root / "missing")
