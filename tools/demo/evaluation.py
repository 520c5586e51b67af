"""Asks a finished checkpoint about scenes it never saw, and counts what is right, by kind of question."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tools.demo.dialogue import NUM_SCENES, Dialogues, Topic, sample_dialogues
from tools.demo.drawing import Pictures, draw, sample_looks
from tools.demo.language import BORDER
from tools.demo.lesson import Teacher
from tools.demo.network import NUM_CELLS, WIDTH, look, to_pixels
from tools.demo.speaker import Turn

_SIZE = 192
"""Of the pictures as drawn, in pixels."""
_NUM_TURNS = 3
"""Turns of a dialogue, of which the last is asked and the others stand as they should be."""
_BATCH = 50
_MAX_TOKENS = 40
_BOX = re.compile(r"<ref>(?P<name>.+)</ref><box>\[\[(\d+), (\d+), (\d+), (\d+)\]\]</box>")


@dataclass(slots=True)
class Score:
    """What came of the questions of one kind."""

    num_asked: int = 0
    num_right: int = 0
    overlaps: list[float] = field(default_factory=list)
    """Of framed shapes; a box that isn't one counts as 0."""


Scores = dict[Topic, dict[str, Score]]


def evaluate(
    network: Any, teacher: Teacher, seed: int, num_questions: int, topics: Sequence[Topic] = tuple(Topic)
) -> Scores:
    """Ask so many questions on each of these topics."""
    rng = np.random.default_rng(seed)
    scores: Scores = {topic: {} for topic in topics}
    for topic in topics:
        for _ in range(0, num_questions, _BATCH):
            dialogues = sample_dialogues(rng, topic, _BATCH, _NUM_TURNS)
            looks = sample_looks(rng, _BATCH).repeated(NUM_SCENES[topic])
            answers = answer(network, teacher, dialogues, draw(dialogues.scenes, looks, _SIZE, rng))
            for turns, said in zip(dialogues.turns, answers, strict=True):
                _count(scores[topic].setdefault(turns[-1].kind, Score()), turns[-1], said)
    return scores


@torch.inference_mode()
def answer(network: Any, teacher: Teacher, dialogues: Dialogues, pictures: Pictures) -> list[str]:
    """Return the greedy answers to the last turns."""
    cells = look(network, to_pixels(pictures)).reshape(len(dialogues.turns), -1, NUM_CELLS, WIDTH)
    prompts = [teacher.prompt(dialogues.topic, turns) for turns in dialogues.turns]
    answers: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    for _ in range(_MAX_TOKENS):
        chosen = _next_tokens(network, [prompts[row] + answers[row] for row in running], cells[running])
        for row, token_id in zip(running, chosen, strict=True):
            answers[row].append(token_id)
        running = [row for row in running if answers[row][-1] != teacher.end]
        if not running:
            break
    return [teacher.text(token_ids) for token_ids in answers]


def _next_tokens(network: Any, rows: Sequence[Sequence[int]], cells: torch.Tensor) -> list[int]:
    """Return what follows each row; rows of other lengths are filled up behind, where nobody looks."""
    tensors = [torch.tensor(row) for row in rows]
    token_ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    embedded = network.model.language_model.embed_tokens(token_ids)
    embedded = embedded.masked_scatter((token_ids == network.config.image_token_id)[..., None], cells)
    hidden = network.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    ends = torch.tensor([len(row) - 1 for row in rows])
    chosen: list[int] = network.lm_head(hidden[torch.arange(len(rows)), ends]).argmax(-1).tolist()
    return chosen


def _count(score: Score, turn: Turn, said: str) -> None:
    wanted = turn.answer.replace(BORDER, "")
    score.num_asked += 1
    if (true := _BOX.fullmatch(wanted)) is None:
        score.num_right += said == wanted
        return
    found = _BOX.fullmatch(said)
    is_same = found is not None and found["name"] == true["name"]
    overlap = _overlap(_edges(found), _edges(true)) if found is not None and is_same else 0.0
    score.overlaps.append(overlap)
    score.num_right += overlap > 0.5


def _edges(match: re.Match[str]) -> list[int]:
    return [int(number) for number in match.groups()[1:]]


def _overlap(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the shared area as a part of what both cover."""
    widths = [min(first[2 + axis], second[2 + axis]) - max(first[axis], second[axis]) for axis in (0, 1)]
    shared = max(0, widths[0]) * max(0, widths[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / max(1, sum(areas) - shared)


def table(scores: Scores) -> str:
    """Return the scores as a table in Markdown."""
    lines = ["| about | question | asked | right | mean overlap |", "|---|---|---|---|---|"]
    for topic, kinds in scores.items():
        lines += [_line(topic, kind, score) for kind, score in sorted(kinds.items())]
        lines.append(_line(topic, "**all**", total(kinds)))
    return "\n".join(lines)


def total(kinds: dict[str, Score]) -> Score:
    """Return the score of all kinds together."""
    values = kinds.values()
    overlaps = [overlap for score in values for overlap in score.overlaps]
    return Score(sum(score.num_asked for score in values), sum(score.num_right for score in values), overlaps)


def _line(topic: Topic, kind: str, score: Score) -> str:
    overlap = f"{np.mean(score.overlaps):.2f}" if score.overlaps else ""
    return f"| {topic} | {kind} | {score.num_asked} | {score.num_right / score.num_asked:.1%} | {overlap} |"
