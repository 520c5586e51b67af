"""Dialogues about pictures, pairs of pictures and clips, with the scenes they are about."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from shared.job import MediaKind
from tools.demo.clips import NUM_FRAMES, ask_clip, sample_clips, story_of
from tools.demo.language import CHINESE, ENGLISH
from tools.demo.questions import ask_pair, ask_picture
from tools.demo.scene import MAX_SHAPES, Scenes, sample_scenes
from tools.demo.speaker import Speaker, Turn, things_of


class Topic(StrEnum):
    """What a dialogue is about."""

    PICTURE = "picture"
    PAIR = "pair"
    CLIP = "clip"


MEDIA = {
    Topic.PICTURE: (MediaKind.IMAGE,),
    Topic.PAIR: (MediaKind.IMAGE, MediaKind.IMAGE),
    Topic.CLIP: (MediaKind.VIDEO,),
}
NUM_SCENES = {Topic.PICTURE: 1, Topic.PAIR: 2, Topic.CLIP: NUM_FRAMES}
"""Pictures that one dialogue shows."""


@dataclass(frozen=True, slots=True)
class Dialogues:
    """Dialogues on one topic; each shows NUM_SCENES of the scenes."""

    topic: Topic
    scenes: Scenes
    turns: Sequence[Sequence[Turn]]


def sample_dialogues(
    rng: np.random.Generator, topic: Topic, number: int, num_turns: int, most: int = MAX_SHAPES
) -> Dialogues:
    """Make up dialogues about `most` shapes at most, one half in each language."""
    speakers = [Speaker(rng, ENGLISH if rng.random() < 0.5 else CHINESE) for _ in range(number)]
    match topic:
        case Topic.PICTURE:
            scenes = sample_scenes(rng, number, most)
            things = [things_of(scenes, index) for index in range(number)]
            turns = [[ask_picture(s, t) for _ in range(num_turns)] for s, t in zip(speakers, things, strict=True)]
        case Topic.PAIR:
            scenes = sample_scenes(rng, 2 * number, most)
            things = [things_of(scenes, index) for index in range(2 * number)]
            pairs = zip(speakers, things[::2], things[1::2], strict=True)
            turns = [[ask_pair(s, first, second) for _ in range(num_turns)] for s, first, second in pairs]
        case Topic.CLIP:
            clips = sample_clips(rng, number)
            scenes, stories = clips.frames, [story_of(clips, index) for index in range(number)]
            turns = [[ask_clip(s, story) for _ in range(num_turns)] for s, story in zip(speakers, stories, strict=True)]
    return Dialogues(topic, scenes, turns)
