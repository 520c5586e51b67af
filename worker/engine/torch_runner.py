"""The runner of real models: any causal transformers model that can decode rows at positions of their own.

It knows no family: what is special about one stays in its model's own forward.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers.cache_utils import Cache

from worker.engine.adapters import AdapterSlots
from worker.engine.cache import SlotCache, new_cache
from worker.engine.call import find_decoder
from worker.engine.capture import reason_to_stay_eager
from worker.engine.choice import Choice
from worker.engine.encoder import Encoder
from worker.engine.feed import KNOWN, Column, Feed, padding
from worker.engine.flight import Flight
from worker.engine.forward import EagerForward, Forward, Record
from worker.engine.pieces import identify
from worker.engine.pool import Allocate, zeros
from worker.engine.prefill import ChunkedPrefill, Reader, WholePrefill, keep_last
from worker.engine.rotary import settle
from worker.engine.rows import Content
from worker.engine.runner import MediaRoom, MediaStats, Prefill
from worker.engine.sampler import Sampler
from worker.engine.sequence import Sequence
from worker.engine.token import Token
from worker.engine.whole import reason_to_read_whole

MEDIA_CACHE_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class TorchFlight:
    """A step that was asked of the device; implements `Flight`."""

    sequences: list[Sequence]
    choice: Choice

    def collect(self) -> list[Token]:
        """Wait until its tokens are on the host."""
        return self.choice.tokens()


class TorchRunner:
    """Reads sequences one by one, or their ends together, and decodes all of them together; implements `Runner`.

    Created once the model is loaded, by whoever knows that its pools fit beside it. Its decode steps are recorded by
    `record`, where the model allows it.
    """

    def __init__(
        self,
        model: Any,
        max_num_seqs: int,
        max_model_len: int,
        media_cache_bytes: int = MEDIA_CACHE_BYTES,
        *,
        allocate: Allocate = zeros,
        media_room: MediaRoom | None = None,
        record: Record | None = None,
        overlaps: bool = False,
    ) -> None:
        self.media_room = media_room
        self.max_model_len = max_model_len
        self.overlaps = overlaps
        self.adapters = AdapterSlots(model.requires_grad_(False))  # a recording takes weights as they are
        self._model = model
        self._device: torch.device = model.device
        self._config = model.config.get_text_config(decoder=True)
        self.vocab_size: int = self._config.vocab_size
        self._sampler = Sampler()
        self._cache = SlotCache(self._config, sample_cache(model), max_num_seqs, max_model_len, allocate)
        # Only now: the sample, a short text, has undone what a longer one of another runner made of them.
        settle(find_decoder(model), self._config, max_model_len)
        self._encoder = Encoder(model, media_cache_bytes)
        self._reader = Reader(model, find_decoder(model), self._config, self._cache, self.adapters, self._encoder)
        self._reads_whole = reason_to_read_whole(model, max_model_len) is not None
        eager = EagerForward(model, self._cache, self.adapters)
        self._forward: Forward = eager
        if record is not None and reason_to_stay_eager(model, max_model_len) is None:
            self._forward = record(eager, self.adapters, max_num_seqs, max_model_len)

    @property
    def media_stats(self) -> MediaStats:
        """What remembering encoded media has saved so far."""
        return self._encoder.stats

    def content(self, sequence: Sequence) -> Content | None:
        """Return the sequence's tokens; None if the model's rows can't be cut, or nothing is known of its media."""
        prompt = sequence.prompt
        if self._reads_whole or not prompt.is_shareable:
            return None
        space = self.adapters.identity(sequence.adapter), tuple(sorted(prompt.row_features.items()))
        return Content(space, identify(prompt, sequence.token_ids))

    def prefill(self, sequence: Sequence, row: int, num_cached: int) -> Prefill:
        """Begin to read prompt and answer so far into a row."""
        if self._reads_whole:
            return WholePrefill(self._reader, sequence, row)
        return ChunkedPrefill(self._reader, sequence, row, num_cached)

    def read(self, prefills: list[Prefill]) -> None:
        """Read what is left of prompts in neighbouring rows, by one call of the language model where they agree."""
        chunked = [prefill for prefill in prefills if isinstance(prefill, ChunkedPrefill)]
        for _, agreeing in groupby(chunked, key=lambda prefill: prefill.terms):
            ChunkedPrefill.finish(list(agreeing))

    @torch.inference_mode()
    def launch(self, sequences: list[Sequence], before: Flight | None) -> TorchFlight:
        """Feed each row its last token, and wait for nothing."""
        assert before is None or isinstance(before, TorchFlight)
        columns = self._columns(sequences, before)
        width = max(column.newest for column in columns) + 1
        columns += [padding(self._cache.scratch)] * (self._forward.num_rows(len(columns)) - len(columns))
        feed = Feed.of(columns, _row_features(sequences), self._device)
        if before is not None:
            feed.fetch(before.choice.token_ids)
        logits = self._forward(feed, [sequence.adapter for sequence in sequences], width)
        return TorchFlight(sequences, self._sampler.pick(logits, sequences, feed.token_ids[: len(sequences), 0]))

    def _columns(self, sequences: Rows[Sequence], before: TorchFlight | None) -> list[Column]:
        rows = {sequence: row for row, sequence in enumerate(before.sequences)} if before is not None else {}
        indices, positions = self._cache.grow(len(sequences))
        return [
            Column(s.last_token_id, rows[s] if s.num_flying else KNOWN, index, index, position, s.adapter)
            for s, index, position in zip(sequences, indices, positions, strict=True)
        ]

    @torch.inference_mode()
    def claim(self, row: int, num_tokens: int) -> None:
        """Say that a row holds so many tokens, whatever lies there."""
        self._cache.truncate(row, num_tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first keys and values of one row over another row's."""
        self._cache.copy(source, target, num_tokens)

    @torch.inference_mode()
    def swap(self, row: int, other: int) -> None:
        """Let the keys and values of two rows change places."""
        self._cache.swap(row, other)


def _row_features(sequences: Rows[Sequence]) -> dict[str, list[float]]:
    rows = [sequence.prompt.row_features for sequence in sequences]
    return {name: [row[name] for row in rows] for name in rows[0]}


@torch.inference_mode()
def sample_cache(model: Any) -> Cache:
    """Return what the model remembers of two tokens, from which follows what it remembers of any number."""
    cache = new_cache(model.config.get_text_config(decoder=True))
    ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    model(input_ids=ids, past_key_values=cache, use_cache=True, **keep_last(model))
    return cache
