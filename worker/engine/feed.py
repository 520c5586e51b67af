"""What a decode step is fed: one column of numbers a row, which travel to the device in one copy."""

from collections.abc import Sequence as Columns
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch

from worker.engine.sequence import BASE
from worker.engine.upload import upload

KNOWN = -1
"""The source of a token that the host has."""


class Column(NamedTuple):
    """One row's numbers."""

    token_id: int
    source: int
    """The row of the step before whose token is fed instead, because only the device has it yet; or `KNOWN`."""
    place: int
    """Where in its row of the pools it is written."""
    newest: int
    """The index of the last token that it sees: its own."""
    position: int
    """That index as the model is told of it (M-RoPE)."""
    adapter: int


def padding(scratch: int) -> Column:
    """Return the numbers of a row that nobody looks at.

    It writes where no mask shows it, and sees what its row begins with, because a softmax over nothing isn't a number.
    """
    return Column(0, KNOWN, scratch, 0, 0, BASE)


@dataclass(frozen=True, slots=True)
class Feed:
    """The numbers of all rows on the device."""

    numbers: torch.Tensor  # [fields, rows], int64
    features: dict[str, torch.Tensor]  # [rows] each

    @classmethod
    def of(cls, columns: Columns[Column], features: dict[str, list[float]], device: torch.device) -> Self:
        """Send them there; rows beyond those that have features get the first one's."""
        numbers = upload([*zip(*columns, strict=True)], torch.long, device)
        padded = {name: [*each, *each[:1] * (len(columns) - len(each))] for name, each in features.items()}
        return cls(numbers, {name: upload(each, torch.float32, device) for name, each in padded.items()})

    def __len__(self) -> int:
        return self.numbers.shape[1]

    @property
    def token_ids(self) -> torch.Tensor:
        """Shape [rows, 1], as the next three."""
        return self.numbers[0, :, None]

    @property
    def places(self) -> torch.Tensor:
        """Where each row writes."""
        return self.numbers[2, :, None]

    @property
    def indices(self) -> torch.Tensor:
        """What each row sees at most."""
        return self.numbers[3, :, None]

    @property
    def positions(self) -> torch.Tensor:
        """What the model is told of where each row is."""
        return self.numbers[4, :, None]

    @property
    def adapters(self) -> torch.Tensor:
        """Slots, shape [rows]."""
        return self.numbers[5]

    def fetch(self, token_ids: torch.Tensor) -> None:
        """Put the tokens of the step before, shape [its rows], where only the device has them."""
        sources = self.numbers[1]
        self.numbers[0] = torch.where(sources < 0, self.numbers[0], token_ids.index_select(0, sources.clamp(min=0)))

    def first(self, count: int) -> "Feed":
        """Return a view of the first rows."""
        return Feed(self.numbers[:, :count], {name: feature[:count] for name, feature in self.features.items()})

    def filled(self, count: int, scratch: int) -> "Feed":
        """Return at least so many rows, of which those behind its own are padding."""
        missing = max(0, count - len(self))
        nobody = self.numbers.new_tensor(padding(scratch))[:, None].expand(-1, missing)
        features = {name: torch.cat([each, each[:1].expand(missing)]) for name, each in self.features.items()}
        return Feed(torch.cat([self.numbers, nobody], dim=1), features)

    def copy_(self, other: "Feed") -> None:
        """Take the numbers of as many rows."""
        self.numbers.copy_(other.numbers)
        for name, feature in self.features.items():
            feature.copy_(other.features[name])
