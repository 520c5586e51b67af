"""Decode steps of fixed shapes, each recorded when it is first needed, compared with the eager one, and replayed.

It knows buckets and buffers; how a step is recorded is the capture's business.
"""

import logging

import torch

from worker.engine.adapters import AdapterSlots
from worker.engine.bucket import Bucket, enough_rows, enough_width
from worker.engine.capture import Capture, Step
from worker.engine.feed import Feed
from worker.engine.forward import EagerForward, check_alike, in_one_line
from worker.engine.sequence import BASE

logger = logging.getLogger(__name__)


class Graphs:
    """Implements `Forward`; created with the runner, and fed by its thread only.

    A step that can't be recorded, or whose replay says something else, is made eagerly, and with it all steps that
    weren't recorded before.
    """

    def __init__(
        self, capture: Capture, eager: EagerForward, adapters: AdapterSlots, max_rows: int, max_width: int
    ) -> None:
        """Record steps of at most so many rows and tokens."""
        self._eager = eager
        self._adapters = adapters
        self._capture = capture
        self._max_rows = max_rows
        self._max_width = max_width
        self._replays: dict[Bucket, Step] = {}
        self._version = adapters.version
        self._is_trusted = True
        self._feed: Feed | None = None  # [max_rows]
        self._logits = torch.empty(0)  # [max_rows, vocab]

    def num_rows(self, count: int) -> int:
        """As many as the bucket has."""
        return enough_rows(count, self._max_rows)

    def __call__(self, feed: Feed, slots: list[int], width: int) -> torch.Tensor:
        """Replay the bucket's step; record it, if it is the first one."""
        self._forget_adapted()
        bucket = Bucket(len(feed), enough_width(width, self._max_width), any(slot != BASE for slot in slots))
        self._take(feed)
        if (replay := self._replays.get(bucket)) is None:
            return self._begin(bucket, feed, slots, width)
        replay()
        return self._logits[: len(slots)]

    def _forget_adapted(self) -> None:
        """Drop what looks at weights of adapters that have come or gone since."""
        if self._version != self._adapters.version:
            self._version = self._adapters.version
            self._replays = {bucket: replay for bucket, replay in self._replays.items() if not bucket.is_adapted}

    def _take(self, feed: Feed) -> None:
        if self._feed is None:
            features = {name: each.new_ones(self._max_rows) for name, each in feed.features.items()}
            self._feed = Feed(feed.numbers.new_zeros((len(feed.numbers), self._max_rows)), features)
        self._feed.first(len(feed)).copy_(feed)

    def _begin(self, bucket: Bucket, feed: Feed, slots: list[int], width: int) -> torch.Tensor:
        expected = self._eager(feed, slots, width)
        if self._is_trusted:
            try:
                self._replays[bucket] = self._record(bucket, expected)
            except Exception as error:  # noqa: BLE001  a model's own code may raise anything when it is recorded
                self._is_trusted = False
                shape = f"{bucket.rows} rows and {bucket.width} tokens"
                logger.warning(
                    "%s decodes without graphs where it has none yet: the step of %s: %s",
                    *(self._eager.name, shape, in_one_line(error)),
                )
        return expected

    def _record(self, bucket: Bucket, expected: torch.Tensor) -> Step:
        """Return the replay; what it writes into the pools is what the eager step has written."""
        if not len(self._logits):
            self._logits = expected.new_empty((self._max_rows, expected.shape[-1]))
        replay = self._capture(lambda: self._run(bucket))
        self._logits.zero_()
        replay()
        check_alike(self._logits[: len(expected)], expected)
        return replay

    def _run(self, bucket: Bucket) -> None:
        assert self._feed is not None
        feed = self._feed.first(bucket.rows)
        self._adapters.select_rows(feed.adapters if bucket.is_adapted else None)
        self._logits[: bucket.rows] = self._eager.run(feed, bucket.width)
