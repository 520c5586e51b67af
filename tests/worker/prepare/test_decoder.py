"""The processes that decode: what breaks in them costs the request that brought it, and they have nothing to lose."""

import io
import os
import signal
import struct
import threading
import zlib
from contextvars import copy_context
from pathlib import Path

import decord
import numpy as np
import psutil
import pytest
from PIL import Image, ImageOps

from shared.errors import InvalidMedia
from tests.cases import INTERNVL2, QWEN2_AUDIO
from worker.prepare.decoder import one_request, open_decoder
from worker.prepare.limits import DecoderLimits, MediaLimits
from worker.prepare.media import decode_audio, decode_frames, decode_image

CLIP = (INTERNVL2 / "media" / "clip.mp4").read_bytes()
PHOTO = (INTERNVL2 / "media" / "photo.jpg").read_bytes()
PARAM = "messages[0].content[2]"


@pytest.fixture
def decoder():
    """One process of one's own, which is found by being the only one."""
    with open_decoder(DecoderLimits(num_decoders=1, decode_timeout_s=20), MediaLimits()) as opened:
        before = children()
        decode_image(PHOTO, PARAM)
        (opened.process,) = [psutil.Process(pid) for pid in children() - before]
        yield opened


def children():
    return {child.pid for child in psutil.Process().children()}


def refused(decode):
    with pytest.raises(InvalidMedia) as raised:
        decode()
    assert raised.value.param == PARAM
    return raised.value.message


def signalled(decoder, number):
    """A clip whose decoder gets a signal in the middle of its work."""

    def choose(num_frames, rate):
        decoder.process.send_signal(number)
        return [0]

    return refused(lambda: decode_frames(CLIP, choose, PARAM))


@pytest.mark.parametrize("name", sorted(path.name for path in (INTERNVL2 / "media").iterdir() if path.suffix != ".mp4"))
def test_picture_is_the_same_to_the_bit_as_in_this_process(name):
    content = (INTERNVL2 / "media" / name).read_bytes()

    decoded = decode_image(content, PARAM)

    with Image.open(io.BytesIO(content)) as picture:
        assert decoded.tobytes() == picture.convert("RGB").tobytes()
        assert ImageOps.exif_transpose(decoded).size == ImageOps.exif_transpose(picture).size


def test_frames_are_the_same_to_the_bit_as_in_this_process():
    frames = decode_frames(CLIP, lambda num_frames, rate: [3, 30, 3], PARAM)

    expected = decord.VideoReader(io.BytesIO(CLIP)).get_batch([3, 30, 3]).asnumpy()
    np.testing.assert_array_equal(np.stack([np.asarray(frame) for frame in frames]), expected)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGXCPU])
def test_crash_costs_one_request_and_the_process_is_replaced(decoder, number):
    assert "breaks its decoder" in signalled(decoder, number)

    assert decode_image(PHOTO, PARAM).size == (320, 200)
    assert decoder.process.pid not in children()


def test_hang_ends_by_time_and_the_process_is_replaced(monkeypatch):
    with open_decoder(DecoderLimits(num_decoders=1, decode_timeout_s=0.5), MediaLimits()) as opened:
        before = children()

        def hang(num_frames, rate):
            (pid,) = children() - before
            os.kill(pid, signal.SIGSTOP)
            return [0]

        assert "longer than 0.5 s" in refused(lambda: decode_frames(CLIP, hang, PARAM))
        assert children() == before
        assert opened.limits.max_decoded_bytes == MediaLimits().max_decoded_bytes


def test_process_that_died_idle_is_replaced_unnoticed(decoder):
    decoder.process.kill()
    psutil.wait_procs([decoder.process], timeout=10)

    assert decode_image(PHOTO, PARAM).size == (320, 200)


def test_choice_that_refuses_leaves_the_process_for_the_next(decoder):
    def choose(num_frames, rate):
        raise InvalidMedia("not this clip", param=PARAM)

    assert refused(lambda: decode_frames(CLIP, choose, PARAM)) == "not this clip"
    assert decode_image(PHOTO, PARAM).size == (320, 200)
    assert decoder.process.is_running()


def test_threads_wait_for_a_free_process(decoder):
    sizes = []

    def decode():
        sizes.append(decode_image(PHOTO, PARAM).size)

    threads = [threading.Thread(target=copy_context().run, args=(decode,)) for _ in range(8)]
    before = children()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sizes == [(320, 200)] * 8
    assert children() == before


def test_decoder_has_no_secrets_no_files_and_no_model(decoder, monkeypatch):
    folder = Path(f"/proc/{decoder.process.pid}")

    opened = {os.readlink(link) for link in (folder / "fd").iterdir()}
    limits = {line[:26].strip(): line[26:].split()[1] for line in (folder / "limits").read_text().splitlines()[1:]}

    assert {name.split(":")[0] for name in opened} == {"/dev/null", "socket", "/memfd"}
    assert len(list((folder / "fd").iterdir())) == 5
    assert limits["Max open files"] == "3"
    assert limits["Max address space"] == str(4 * 2**30)
    assert "torch" not in (folder / "maps").read_text()
    assert not any(key.startswith(("BATON", "REDIS")) for key in decoder.process.environ())
    assert "HOME" not in decoder.process.environ()


def png(width, height):
    """A few kilobytes that are that many pixels of nothing."""
    rows = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    packed = b"".join(rows.compress(line) for _ in range(height)) + rows.flush()

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_bomb_meets_the_memory_limit_and_nobody_else_does():
    bomb = png(13_000, 13_000)  # 169 million pixels, a gigabyte in two copies
    assert len(bomb) < 50_000

    with open_decoder(DecoderLimits(num_decoders=1, decode_memory_bytes=2**29), MediaLimits()):
        assert "decode" in refused(lambda: decode_image(bomb, PARAM))
        assert decode_image(PHOTO, PARAM).size == (320, 200)


def test_media_of_one_request_share_what_it_may_have():
    with one_request(MediaLimits(max_decoded_bytes=3 * 320 * 200 * 2)):
        decode_image(PHOTO, PARAM)
        decode_image(PHOTO, PARAM)
        assert "this one takes 192000 bytes, and 0 are left" in refused(lambda: decode_image(PHOTO, PARAM))
        assert "0 are left" in refused(lambda: decode_frames(CLIP, lambda num_frames, rate: [0], PARAM))
        speech = (QWEN2_AUDIO / "media" / "speech.wav").read_bytes()
        assert "0 are left" in refused(lambda: decode_audio(speech, 16_000, PARAM))
    decode_image(PHOTO, PARAM)


def test_processes_end_with_their_decoder():
    before = children()
    with open_decoder(DecoderLimits(), MediaLimits()) as opened:
        opened.warm()
        assert len(children() - before) == 1
    assert children() == before
