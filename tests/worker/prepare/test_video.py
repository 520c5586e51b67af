"""Clips: the frames that were asked for, and bytes that only claim to be a clip."""

from io import BytesIO

import pytest
from PIL import Image

from shared.errors import InvalidMedia
from tests.cases import INTERNVL2
from worker.prepare.decoder import one_request
from worker.prepare.limits import MediaLimits
from worker.prepare.media import decode_frames

PARAM = "messages[0].content[0]"
CLIP = (INTERNVL2 / "media" / "clip.mp4").read_bytes()


def refused(content, choose=lambda num_frames, rate: [0]):
    with pytest.raises(InvalidMedia) as raised:
        decode_frames(content, choose, PARAM)
    assert raised.value.param == PARAM
    return raised.value.message


def test_frames_come_in_the_order_asked_for():
    frames = decode_frames(CLIP, lambda num_frames, rate: [0, num_frames - 1], PARAM)
    again = decode_frames(CLIP, lambda num_frames, rate: [num_frames - 1, 0, 0], PARAM)

    assert all(frame.mode == "RGB" and frame.size == (160, 96) for frame in frames)
    assert frames[0].tobytes() != frames[1].tobytes()
    assert [again[1], again[0], again[2]] == [frames[0], frames[1], frames[0]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no clip",
        (INTERNVL2 / "media" / "photo.jpg").read_bytes(),
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"#EXTM3U\nAVI \n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n",
        b"\0\0\0\x0cftypjp2 \r\nv=0\r\nc=IN IP4 127.0.0.1\r\nm=video 9 RTP/AVP 96\r\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>file:///etc</BaseURL></MPD>",
    ],
)
def test_what_is_no_clip_never_reaches_the_decoder(content, capfd):
    assert "MP4 or MOV, WebM or Matroska, AVI, GIF, WebP" in refused(content)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "content", [CLIP[: len(CLIP) // 2], CLIP[:-500], CLIP[:64], CLIP[:5000] + bytes(len(CLIP) - 5000), CLIP[:12]]
)
def test_broken_clip_is_refused(content):
    assert "can't be decoded" in refused(content, lambda num_frames, rate: list(range(num_frames)))


def test_frames_beyond_the_end_are_no_crash():
    assert "can't be decoded" in refused(CLIP, lambda num_frames, rate: [num_frames])


def test_limits_on_frames_and_pixels_hold():
    with one_request(MediaLimits(max_video_frames=36)):
        assert refused(CLIP) == "the clip has 37 frames; at most 36 are taken"
    with one_request(MediaLimits(max_video_pixels=3 * 160 * 96)):
        assert len(decode_frames(CLIP, lambda num_frames, rate: [0, 1, 2], PARAM)) == 3
        assert "more than 46080 pixels" in refused(CLIP, lambda num_frames, rate: [0, 1, 2, 3])
    with one_request(MediaLimits(max_video_pixels=160 * 96 - 1)):
        assert "more than 15359 pixels" in refused(CLIP, lambda num_frames, rate: pytest.fail("was opened"))


def test_choice_is_told_how_many_frames_a_second_has():
    heard = []

    decode_frames(CLIP, lambda num_frames, rate: heard.append((num_frames, rate)) or [0], PARAM)

    assert heard == [(37, 10.0)]


def test_frames_are_pictures():
    assert isinstance(decode_frames(CLIP, lambda num_frames, rate: [0], PARAM)[0], Image.Image)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_frames_of_an_animation_are_those_asked_for(kind):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    first, *others = [Image.new("RGB", (64, 48), colour) for colour in colours]
    content = BytesIO()
    first.save(content, kind, save_all=True, append_images=others, duration=250, lossless=True)
    rates = []

    def choose(num_frames, rate):
        rates.append((num_frames, rate))
        return [3, 0, 2]

    frames = decode_frames(content.getvalue(), choose, PARAM)

    assert rates == [(4, 4.0)]
    assert [frame.getpixel((5, 5)) for frame in frames] == [colours[3], colours[0], colours[2]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_broken_animation_is_refused(kind):
    content = BytesIO()
    frames = [Image.effect_noise((64, 48), 90).convert("RGB") for _ in range(3)]
    frames[0].save(content, kind, save_all=True, append_images=frames[1:])

    assert "can't be decoded" in refused(content.getvalue()[:300], lambda num_frames, rate: [0, 1, 2])
