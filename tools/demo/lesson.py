"""Dialogues as a model meets them: token ids that Baton's own InternVL2 family renders, and what is to be learnt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from shared.job import MediaKind, MediaPart, Message, Part, Role, TextPart
from tools.demo.clips import NUM_FRAMES
from tools.demo.dialogue import MEDIA, Dialogues, Topic
from tools.demo.language import BORDER
from tools.demo.network import NUM_CELLS
from tools.demo.speaker import Turn
from worker.models.internvl2 import GROUNDING, TEMPLATES, InternVL2
from worker.models.vocabulary import AnswerDecoder, Vocabulary

IGNORED = -100
"""The target of a token that nothing is to be learnt from."""
_OTHER_SYSTEM = Message(Role.SYSTEM, (TextPart("You are a helpful assistant."),))


@dataclass(frozen=True, slots=True)
class Lesson:
    """A batch: ids and targets of shape [dialogues, length], filled up on the right."""

    token_ids: torch.Tensor
    targets: torch.Tensor
    """The same ids where an answer is to be learnt, elsewhere IGNORED."""
    shares: torch.Tensor
    """How much each token is worth where short answers are to count for more: one over the root of the length."""


class Teacher:
    """Renders dialogues."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        template = TEMPLATES["internlm2-chat"]
        self._vocabulary = vocabulary
        self._family = InternVL2(
            facts=cast(Any, None),
            runner=cast(Any, None),
            vocabulary=vocabulary,
            decoder=cast(Any, None),
            template=template,
            tiler=cast(Any, None),
            tile_length=NUM_CELLS,
        )
        self._header = vocabulary.render([*template.headers[Role.ASSISTANT]])
        self._decoder = AnswerDecoder(vocabulary, shown=GROUNDING)
        self.end = vocabulary.control_ids[template.end.token]
        """The token that ends a turn."""

    def lesson(self, rng: np.random.Generator, dialogues: Dialogues) -> Lesson:
        """Return the dialogues as a batch; some have another system text, or the words before the pictures."""
        rendered = [torch.tensor(self._render(rng, dialogues.topic, turns)) for turns in dialogues.turns]
        token_ids = torch.nn.utils.rnn.pad_sequence(rendered, batch_first=True, padding_value=self.end)
        targets = torch.full_like(token_ids, IGNORED)
        shares = torch.zeros(token_ids.shape)
        for row, ids in enumerate(rendered):
            for start, stop in self._answers(ids.tolist()):
                targets[row, start:stop] = ids[start:stop]
                shares[row, start:stop] = (stop - start) ** -0.5
        return Lesson(token_ids, targets, shares)

    def prompt(self, topic: Topic, turns: Sequence[Turn]) -> list[int]:
        """Return the ids of a prompt that ends where the last turn's answer begins."""
        messages = _messages(topic, turns, words_first=False)[:-1]
        return self._family.render(messages, _counts(messages), escapes=False)

    def text(self, token_ids: Sequence[int]) -> str:
        """Return an answer as a client gets it."""
        return self._decoder.decode(token_ids).strip()

    def _render(self, rng: np.random.Generator, topic: Topic, turns: Sequence[Turn]) -> list[int]:
        messages = _messages(topic, turns, words_first=rng.random() < 0.15)
        if rng.random() < 0.1:
            messages.insert(0, _OTHER_SYSTEM)
        token_ids = self._family.render(messages, _counts(messages), escapes=False)
        return [*token_ids, self.end]  # the family leaves the model's own last turn open

    def _answers(self, token_ids: list[int]) -> list[tuple[int, int]]:
        """Return where answers begin and end, the token that ends them included."""
        size = len(self._header)
        starts = [start + size for start in range(len(token_ids)) if token_ids[start : start + size] == self._header]
        return [(start, token_ids.index(self.end, start) + 1) for start in starts]


def _messages(topic: Topic, turns: Sequence[Turn], *, words_first: bool) -> list[Message]:
    media: list[Part] = [MediaPart(kind, "", str(number)) for number, kind in enumerate(MEDIA[topic])]
    messages = []
    for turn in turns:
        text: list[Part] = [TextPart(turn.question.replace(BORDER, ""))]
        messages.append(Message(Role.USER, (*text, *media) if words_first else (*media, *text)))
        messages.append(Message(Role.ASSISTANT, (TextPart(turn.answer.replace(BORDER, "")),)))
        media = []
    return messages


def _counts(messages: Sequence[Message]) -> dict[MediaPart, list[int]]:
    media = [part for message in messages for part in message.parts if isinstance(part, MediaPart)]
    return {part: [1] * (NUM_FRAMES if part.kind is MediaKind.VIDEO else 1) for part in media}
