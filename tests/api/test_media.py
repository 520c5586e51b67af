import json

import pytest

from api.media import MediaSource, place_media
from api.schema.request import parse
from shared.errors import InvalidRequest

IMAGE, VIDEO, AUDIO = "image_url", "video_url", "audio_url"


TEXT = {"type": "text", "text": "t"}


def user(*contents):
    return {"role": "user", "content": list(contents) if len(contents) != 1 else contents[0]}


def part(kind: str, address: str):
    return {"type": kind, kind: {"url": address}}


def placed(*messages, **lists) -> list[list[str]]:
    """The parts of each message; media as `kind:address@param`."""
    turns = place_media(parse(json.dumps({"model": "m", "messages": messages, **lists}).encode()))
    return [
        [f"{p.kind}:{p.address}@{p.param}" if isinstance(p, MediaSource) else p.text for p in turn.parts]
        for turn in turns
    ]


@pytest.mark.parametrize(
    ("messages", "lists", "expected"),
    [
        ([user("")], {}, [[]]),
        ([user("see <image>")], {}, [["see <image>"]]),
        ([user({"type": "text", "text": "a<image><video>b"}, TEXT)], {}, [["a<image><video>b", "t"]]),
        ([user("a<image>b<video>c")], {"images": "X"}, [["a", "image:X@images[0]", "b<video>c"]]),
        ([user("see <image>")], {"images": []}, [["see <image>"]]),
        (
            [user({"type": "text", "text": "a"}, part(IMAGE, "X"), {"type": "text", "text": "b"}, part(VIDEO, "Y"))],
            {},
            [["a", "image:X@messages[0].content[1].image_url", "b", "video:Y@messages[0].content[3].video_url"]],
        ),
        (
            [user("a<img>X</img>b<video>Y</video>")],
            {},
            [["a", "image:X@messages[0].content", "b", "video:Y@messages[0].content"]],
        ),
        (
            [user({"type": "text", "text": "a"}, {"type": "text", "text": "<img>X</img>"})],
            {},
            [["a", "image:X@messages[0].content[1].text"]],
        ),
        ([user("a <img> b </img")], {}, [["a <img> b </img"]]),
        ([user("a <img></img>")], {}, [["a <img></img>"]]),
        ([user("<image>a<image>")], {"images": ["X", "Y"]}, [["image:X@images[0]", "a", "image:Y@images[1]"]]),
        ([user("a <image>")], {"images": ["X", "Y"]}, [["image:X@images[0]", "a ", "image:Y@images[1]"]]),
        (
            [user("a"), {"role": "assistant", "content": "b"}, user("c <image>")],
            {"images": ["X", "Y"], "videos": "V"},
            [["video:V@videos[0]", "image:X@images[0]", "a"], ["b"], ["c ", "image:Y@images[1]"]],
        ),
        ([{"role": "system", "content": "s"}, user("a")], {"images": "X"}, [["s"], ["image:X@images[0]", "a"]]),
        (
            [user({"type": "text", "text": "<image>"}, part(IMAGE, "P"))],
            {"images": "X"},
            [["image:X@images[0]", "image:P@messages[0].content[1].image_url"]],
        ),
        ([user("<img>X</img><video>")], {"videos": "V"}, [["image:X@messages[0].content", "video:V@videos[0]"]]),
        (
            [user("a<audio>X</audio>b"), {"role": "assistant", "content": "c"}, user(part(AUDIO, "Y"), TEXT)],
            {},
            [["a", "audio:X@messages[0].content", "b"], ["c"], ["audio:Y@messages[2].content[0].audio_url", "t"]],
        ),
        (
            [user({"type": "audio_url", "audio_url": "X"}, TEXT)],
            {},
            [["audio:X@messages[0].content[0].audio_url", "t"]],
        ),
        (
            [user({"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}, TEXT)],
            {},
            [["audio:data:audio/wav;base64,UklG@messages[0].content[0].input_audio", "t"]],
        ),
        (
            [user("a <audio> b <audio>")],
            {"audios": ["X", "Y", "Z"]},
            [["audio:X@audios[0]", "a ", "audio:Y@audios[1]", " b ", "audio:Z@audios[2]"]],
        ),
        (
            [user("a")],
            {"audios": "A", "images": "I", "videos": "V"},
            [["video:V@videos[0]", "image:I@images[0]", "audio:A@audios[0]", "a"]],
        ),
        ([user("what is <audio>?")], {}, [["what is <audio>?"]]),
    ],
)
def test_media_stand_where_the_client_put_them(messages, lists, expected):
    assert placed(*messages, **lists) == expected


@pytest.mark.parametrize(
    ("messages", "lists", "param", "says"),
    [
        ([user("<image><image>")], {"images": "X"}, "images", "2 <image> tags.* 1 entries"),
        ([user("<img>X</img>")], {"images": "Y"}, "images", "not mix"),
        ([user("<video>X</video>")], {"videos": "Y"}, "videos", "not mix"),
        ([user("<audio><audio>")], {"audios": "X"}, "audios", "2 <audio> tags.* 1 entries"),
        ([user("<audio>X</audio>")], {"audios": "Y"}, "audios", "not mix"),
        ([{"role": "system", "content": "<audio>X</audio>"}, user("a")], {}, "messages[0].content", "role system"),
        ([{"role": "system", "content": "s <img>X</img>"}, user("a")], {}, "messages[0].content", "role system"),
        ([{"role": "system", "content": "s"}], {"images": "X"}, "images[0]", "no user message"),
        (
            [user("a"), {"role": "assistant", "content": [part(IMAGE, "X")]}, user("b")],
            {},
            "messages[1].content",
            "role assistant",
        ),
    ],
)
def test_media_without_a_clear_place_are_refused(messages, lists, param, says):
    with pytest.raises(InvalidRequest, match=says) as caught:
        placed(*messages, **lists)

    assert caught.value.param == param
