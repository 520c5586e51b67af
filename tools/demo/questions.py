"""Questions about one picture and about two; what isn't clear is never asked."""

from collections import Counter
from collections.abc import Callable, Sequence

from tools.demo.scene import COLOURS, KINDS
from tools.demo.speaker import Speaker, Thing, Turn

Asker = Callable[[Speaker, Sequence[Thing]], Turn | None]

_CLEARLY_LARGER = 1.3
_CLEARLY_APART = 0.12
_LIKELY = 0.5
"""How often a question is about what is there, where it could be about anything."""


def ask_picture(speaker: Speaker, things: Sequence[Thing]) -> Turn:
    """Return one question about a picture, which may lean on the one before it."""
    if speaker.rng.random() < 0.35 and (turn := speaker.choose(_FOLLOWING)(speaker, things)):
        return turn
    while (turn := speaker.choose(_ASKERS)(speaker, things)) is None:
        pass
    return turn


def ask_pair(speaker: Speaker, first: Sequence[Thing], second: Sequence[Thing]) -> Turn:
    """Return one question about two pictures."""
    while (turn := speaker.choose(_PAIR_ASKERS)(speaker, first, second)) is None:
        pass
    return turn


def _only(things: Sequence[Thing], attribute: str) -> list[Thing]:
    """Return the things that alone have their kind, their colour, or both."""
    counts = Counter(getattr(thing, attribute) for thing in things)
    return [thing for thing in things if counts[getattr(thing, attribute)] == 1]


def _two(speaker: Speaker, things: Sequence[Thing]) -> tuple[Thing, Thing] | None:
    known = _only(things, "looks")
    if len(known) < 2:
        return None
    first, second = speaker.rng.permutation(len(known))[:2]
    return known[first], known[second]


def _kind(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    words = speaker.words
    if len(things) == 1:
        return speaker.ask("only kind", words.kinds[things[0].kind], things[0])
    if not (known := _only(things, "colour")):
        return None
    thing = speaker.choose(known)
    return speaker.ask("kind", words.kinds[thing.kind], thing, colour=speaker.mark(words.colours[thing.colour]))


def _colour(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    if not (known := _only(things, "kind")):
        return None
    thing = speaker.choose(known)
    kind = speaker.mark(speaker.words.kinds[thing.kind])
    return speaker.ask("colour", speaker.words.colours[thing.colour], thing, kind=kind)


def _count(speaker: Speaker, things: Sequence[Thing]) -> Turn:
    return speaker.ask("count", str(len(things)))


def _count_kind(speaker: Speaker, things: Sequence[Thing]) -> Turn:
    kind = _likely(speaker, [thing.kind for thing in things], len(KINDS))
    number = sum(thing.kind == kind for thing in things)
    return speaker.ask("count kind", str(number), plural=speaker.mark(speaker.words.plurals[kind]))


def _count_colour(speaker: Speaker, things: Sequence[Thing]) -> Turn:
    colour = _likely(speaker, [thing.colour for thing in things], len(COLOURS))
    number = sum(thing.colour == colour for thing in things)
    return speaker.ask("count colour", str(number), colour=speaker.mark(speaker.words.colours[colour]))


def _likely(speaker: Speaker, present: Sequence[int], size: int) -> int:
    return speaker.choose(present) if speaker.rng.random() < _LIKELY else int(speaker.rng.integers(size))


def _where(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    known = [(thing, thing.place) for thing in _only(things, "looks") if thing.place is not None]
    if not known:
        return None
    thing, place = speaker.choose(known)
    return speaker.ask("where", speaker.words.places[place], thing, thing=speaker.name(*thing.looks))


def _at(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    places = [thing.place for thing in things]
    known = [thing for thing in things if thing.place is not None and places.count(thing.place) == 1]
    if not known or None in places:
        return None
    thing = speaker.choose(known)
    place = speaker.mark(speaker.words.places[thing.place or 0])
    return speaker.ask("at", speaker.name(*thing.looks), thing, place=place)


def _larger(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    if (two := _two(speaker, things)) is None:
        return None
    larger, smaller = sorted(two, key=lambda thing: -thing.radius)
    if larger.radius < _CLEARLY_LARGER * smaller.radius:
        return None
    first, second = (speaker.name(*thing.looks) for thing in two)
    return speaker.ask("larger", speaker.name(*larger.looks), larger, thing=first, other=second)


def _size(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    if not (known := _only(things, "looks")):
        return None
    thing = speaker.choose(known)
    return speaker.ask("size", speaker.words.sizes[thing.is_large], thing, thing=speaker.name(*thing.looks))


def _exists(speaker: Speaker, things: Sequence[Thing]) -> Turn:
    looks = _likely_looks(speaker, things)
    is_there = any(thing.looks == looks for thing in things)
    return speaker.ask("exists", speaker.words.presences[is_there], thing=speaker.name(*looks))


def _likely_looks(speaker: Speaker, things: Sequence[Thing]) -> tuple[int, int]:
    """Return something that is there, or differs in a single respect from what is."""
    colour, kind = speaker.choose(things).looks
    match int(speaker.rng.integers(4)):
        case 0:
            return int(speaker.rng.integers(len(COLOURS))), kind
        case 1:
            return colour, int(speaker.rng.integers(len(KINDS)))
    return colour, kind


def _check(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    if not (known := _only(things, "kind")):
        return None
    thing = speaker.choose(known)
    colour = _likely(speaker, [thing.colour], len(COLOURS))
    words = {"kind": speaker.words.kinds[thing.kind], "colour": speaker.words.colours[colour]}
    marked = {name: speaker.mark(word) for name, word in words.items()}
    return speaker.ask("check", speaker.truth(colour == thing.colour), thing, **marked)


def _beside(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    if (two := _two(speaker, things)) is None:
        return None
    side = int(speaker.rng.integers(4))
    distance = two[1].centre[side // 2] - two[0].centre[side // 2]
    if abs(distance) < _CLEARLY_APART:
        return None
    first, second = (speaker.name(*thing.looks) for thing in two)
    said = speaker.mark(speaker.words.sides[side])
    return speaker.ask(
        "beside", speaker.truth((distance > 0) == (side % 2 == 0)), two[0], thing=first, other=second, side=said
    )


def _box(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    if not (known := _only(things, "looks")):
        return None
    thing = speaker.choose(known)
    return speaker.ask("box", speaker.box(thing), thing, thing=speaker.name(*thing.looks))


def _list(speaker: Speaker, things: Sequence[Thing]) -> Turn:
    return speaker.ask("list", speaker.enumerate(things))


def _it(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    """Ask more about what the last question was about."""
    if (topic := speaker.topic) is None:
        return None
    words = speaker.words
    answers = {
        "it colour": words.colours[topic.colour],
        "it size": words.sizes[topic.is_large],
        "it box": speaker.box(topic),
    }
    if topic.place is not None:
        answers["it where"] = words.places[topic.place]
    kind = speaker.choose([kind for kind in answers if kind.removeprefix("it ") != speaker.subject])
    return speaker.ask(kind, answers[kind], topic)


def _also(speaker: Speaker, things: Sequence[Thing]) -> Turn | None:
    """Ask the same of something else."""
    if speaker.subject.startswith("count"):
        turn = _count_kind(speaker, things)
        kind = next(kind for kind, plural in enumerate(speaker.words.plurals) if plural in turn.question)
        return speaker.ask("also count", turn.answer, said=speaker.mark(speaker.words.plurals[kind]))
    if (other := _other(speaker, things)) is None:
        return None
    said, answer = other[1:]
    return Turn("also", speaker.ask("also", answer, other[0], said=said).question, answer)


def _other(speaker: Speaker, things: Sequence[Thing]) -> tuple[Thing, str, str] | None:
    """Return another thing, what it is called in this place, and the answer."""
    words, subject = speaker.words, speaker.subject
    if subject == "colour" and (known := [t for t in _only(things, "kind") if t != speaker.topic]):
        thing = speaker.choose(known)
        return thing, speaker.mark(words.kinds[thing.kind]), words.colours[thing.colour]
    known = [thing for thing in _only(things, "looks") if thing != speaker.topic]
    if subject == "where" and (placed := [thing for thing in known if thing.place is not None]):
        thing = speaker.choose(placed)
        return thing, speaker.name(*thing.looks), words.places[thing.place or 0]
    if subject == "size" and known:
        thing = speaker.choose(known)
        return thing, speaker.name(*thing.looks), words.sizes[thing.is_large]
    return None


_ASKERS: list[Asker] = [
    *(_kind, _colour, _colour, _count, _count_kind, _count_colour, _where, _at),
    *(_larger, _size, _exists, _check, _beside, _beside, _box, _box, _list),
]
"""What is hardest to learn stands there twice."""
_FOLLOWING: list[Asker] = [_it, _also]


def _more(speaker: Speaker, *pictures: Sequence[Thing]) -> Turn:
    difference = len(pictures[1]) - len(pictures[0])
    words = speaker.words
    answer = words.equal if difference == 0 else words.choices[1 if difference < 0 else 2]
    return speaker.ask("more", answer)


def _which(speaker: Speaker, *pictures: Sequence[Thing]) -> Turn:
    looks = _likely_looks(speaker, speaker.choose(pictures))
    has = [any(thing.looks == looks for thing in things) for things in pictures]
    answer = speaker.words.choices[has[0] + 2 * has[1]]
    return speaker.ask("which", answer, thing=speaker.name(*looks))


def _nth(speaker: Speaker, *pictures: Sequence[Thing]) -> Turn:
    """Ask about one of the two."""
    number, words = int(speaker.rng.integers(2)), speaker.words
    ordinal, things = speaker.mark(words.ordinals[number]), pictures[number]
    match int(speaker.rng.integers(4)):
        case 0:
            return speaker.ask("nth count", str(len(things)), ordinal=ordinal)
        case 1 | 2 if known := _only(things, "kind"):
            thing = speaker.choose(known)
            kind = speaker.mark(words.kinds[thing.kind])
            return speaker.ask("nth colour", words.colours[thing.colour], kind=kind, ordinal=ordinal)
    return speaker.ask("nth list", speaker.enumerate(things), ordinal=ordinal)


_PAIR_ASKERS: list[Callable[..., Turn | None]] = [_more, _which, _which, _nth, _nth]
