"""Clips: a shape moves past others, or shapes appear one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tools.demo.scene import GRID, MAX_SHAPES, Booleans, Floats, Integers, Scenes, sample_scenes
from tools.demo.speaker import Speaker, Thing, Turn, things_of

NUM_FRAMES = 8
"""As many as InternVL2 takes of a clip."""
_MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
_MIN_WAY, _MAX_WAY = 0.3, 0.65
_NEVER = -1


@dataclass(frozen=True, slots=True)
class Clips:
    """Frames of many clips and what happens in them."""

    frames: Scenes
    """NUM_FRAMES scenes of each clip, one clip after the other."""
    directions: Integers
    """Where the first shape moves; _NEVER where nothing does."""
    appearances: Integers
    """The frame from which on each shape is there, shape [clips, MAX_SHAPES]."""


def sample_clips(rng: np.random.Generator, num_clips: int) -> Clips:
    """Draw clips, one half with a move and the other with shapes that appear."""
    scenes = sample_scenes(rng, num_clips)
    scenes = replace(scenes, is_there=scenes.is_there & (np.arange(MAX_SHAPES) < 3))
    moves = rng.random(num_clips) < 0.5
    directions = np.where(moves, rng.integers(4, size=num_clips), _NEVER)
    starts = rng.permuted(np.tile(np.arange(0, NUM_FRAMES - 1, 2), (num_clips, 1)), axis=1)
    appearances = np.zeros((num_clips, MAX_SHAPES), dtype=int)
    appearances[:, :3] = np.where(moves[:, None], 0, starts[:, :3] - starts[:, :3].min(1, keepdims=True))
    return Clips(_film(rng, scenes, directions, appearances), directions, appearances)


def _film(rng: np.random.Generator, scenes: Scenes, directions: Integers, appearances: Integers) -> Scenes:
    num_clips = len(scenes)
    ways = _ways(rng, scenes, directions)
    centres = np.repeat(scenes.centres[:, None], NUM_FRAMES, axis=1)
    centres[:, :, 0] = ways
    is_there = scenes.is_there[:, None] & (np.arange(NUM_FRAMES)[:, None] >= appearances[:, None])
    stands_in_the_way = _meets(centres, scenes) & (directions != _NEVER)[:, None]
    is_there = is_there & ~stands_in_the_way[:, None]
    each = {
        name: np.repeat(getattr(scenes, name), NUM_FRAMES, axis=0) for name in ("kinds", "colours", "radii", "is_large")
    }
    flat = (num_clips * NUM_FRAMES, MAX_SHAPES)
    return Scenes(**each, centres=centres.reshape(*flat, 2), is_there=is_there.reshape(flat))


def _ways(rng: np.random.Generator, scenes: Scenes, directions: Integers) -> Floats:
    """Return where the first shape is in each frame, shape [clips, NUM_FRAMES, 2]."""
    radii, centres = scenes.radii[:, :1], scenes.centres[:, 0]
    way = rng.uniform(_MIN_WAY, _MAX_WAY, len(scenes))[:, None] * _MOVES[directions]
    least, most = radii + 0.01 - np.minimum(way, 0), 0.99 - radii - np.maximum(way, 0)
    start = np.where(way == 0, centres, least + rng.random(centres.shape) * (most - least))
    path = start[:, None] + way[:, None] * np.linspace(0, 1, NUM_FRAMES)[:, None]
    ways: Floats = np.where((directions == _NEVER)[:, None, None], centres[:, None], path)
    return ways


def _meets(centres: Floats, scenes: Scenes) -> Booleans:
    """Return which shapes the moving one comes across, shape [clips, MAX_SHAPES]."""
    cells = (centres * GRID).astype(int)
    shares = (cells == cells[:, :, :1]).all(-1)
    reach = scenes.radii + scenes.radii[:, :1] + 0.03
    touches = np.abs(centres - centres[:, :, :1]).max(-1) < reach[:, None]
    meets: Booleans = (shares | touches).any(1)
    meets[:, 0] = False
    return meets


@dataclass(frozen=True, slots=True)
class Story:
    """What happens in one clip."""

    things: Sequence[Thing]
    """Those of the last frame, in reading order."""
    mover: Thing | None
    direction: int
    appearing: Sequence[Thing]
    """In their order; empty where something moves."""


def story_of(clips: Clips, index: int) -> Story:
    """Return what one clip tells."""
    last = (index + 1) * NUM_FRAMES - 1
    things, direction = things_of(clips.frames, last), int(clips.directions[index])
    slots = [slot for slot in range(MAX_SHAPES) if clips.frames.is_there[last, slot]]
    by_slot = {slot: _thing_in(clips.frames, last, slot) for slot in slots}
    order = sorted(slots, key=lambda slot: clips.appearances[index, slot])
    moves = direction != _NEVER
    return Story(things, by_slot[0] if moves else None, direction, [] if moves else [by_slot[slot] for slot in order])


def _thing_in(scenes: Scenes, index: int, slot: int) -> Thing:
    alone = replace(scenes, is_there=scenes.is_there & (np.arange(MAX_SHAPES) == slot))
    return things_of(alone, index)[0]


def ask_clip(speaker: Speaker, story: Story) -> Turn:
    """Return one question about a clip."""
    while (turn := speaker.choose(_ASKERS)(speaker, story)) is None:
        pass
    return turn


def _move(speaker: Speaker, story: Story) -> Turn | None:
    if (mover := story.mover) is None or sum(thing.looks == mover.looks for thing in story.things) > 1:
        return None
    answer = speaker.words.directions[story.direction]
    kind = "it move" if speaker.topic == mover and speaker.subject != "move" else "move"
    return speaker.ask(kind, answer, mover, thing=speaker.name(*mover.looks))


def _mover(speaker: Speaker, story: Story) -> Turn | None:
    if story.mover is None:
        return None
    return speaker.ask("mover", speaker.name(*story.mover.looks), story.mover)


def _first(speaker: Speaker, story: Story) -> Turn | None:
    if len({thing.looks for thing in story.appearing}) < max(2, len(story.appearing)):
        return None
    first, *later = story.appearing
    if speaker.rng.random() < 0.4:
        return speaker.ask("first of all", speaker.name(*first.looks), first)
    pair = [first, speaker.choose(later)]
    if speaker.rng.random() < 0.5:
        pair.reverse()
    thing, other = (speaker.name(*thing.looks) for thing in pair)
    return speaker.ask("first", speaker.name(*first.looks), first, thing=thing, other=other)


def _end_count(speaker: Speaker, story: Story) -> Turn:
    return speaker.ask("end count", str(len(story.things)))


def _colour(speaker: Speaker, story: Story) -> Turn | None:
    kinds = [thing.kind for thing in story.things]
    known = [thing for thing in story.things if kinds.count(thing.kind) == 1]
    if not known:
        return None
    thing = speaker.choose(known)
    kind = speaker.mark(speaker.words.kinds[thing.kind])
    return speaker.ask("colour", speaker.words.colours[thing.colour], thing, kind=kind)


_ASKERS: list[Callable[[Speaker, Story], Turn | None]] = [_move, _move, _mover, _first, _first, _end_count, _colour]
