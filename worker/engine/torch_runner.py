"""The runner of real models: any causal transformers model that can decode rows at positions of their own.

It knows no family: what is special about one stays in its model's own forward.
"""

from collections.abc import Sequence as Rows
from typing import Any

import torch
from transformers.cache_utils import Cache

from worker.engine.adapters import AdapterSlots
from worker.engine.cache import SlotCache, new_cache
from worker.engine.call import find_decoder
from worker.engine.constraint import begin_masks
from worker.engine.encoder import Encoder
from worker.engine.pieces import identify
from worker.engine.pool import Allocate, zeros
from worker.engine.prefill import ChunkedPrefill, Reader, WholePrefill, keep_last
from worker.engine.rows import Content
from worker.engine.runner import MediaRoom, MediaStats, Prefill
from worker.engine.sampler import Sampler
from worker.engine.sequence import Sequence
from worker.engine.token import Token
from worker.engine.whole import reason_to_read_whole

MEDIA_CACHE_BYTES = 2**28


class TorchRunner:
    """Reads one sequence at a time and decodes all of them together; implements `Runner`.

    Created once the model is loaded, by whoever knows that its pools fit beside it.
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
    ) -> None:
        self.media_room = media_room
        self.max_model_len = max_model_len
        self.adapters = AdapterSlots(model)
        self._model = model
        self._device: torch.device = model.device
        self._config = model.config.get_text_config(decoder=True)
        self.vocab_size: int = self._config.vocab_size
        self._sampler = Sampler()
        self._cache = SlotCache(self._config, sample_cache(model), max_num_seqs, max_model_len, allocate)
        self._encoder = Encoder(model, media_cache_bytes)
        self._reader = Reader(model, find_decoder(model), self._config, self._cache, self.adapters, self._encoder)
        self._reads_whole = reason_to_read_whole(model, max_model_len) is not None

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

    @torch.inference_mode()
    def decode(self, sequences: list[Sequence]) -> list[Token]:
        """Feed each row its last token; return the next token of each."""
        begin_masks(sequence.constraint for sequence in sequences)
        self.adapters.select([sequence.adapter for sequence in sequences])
        positions, mask = self._cache.step(len(sequences))
        logits = self._model(
            input_ids=self._tensor([[sequence.last_token_id] for sequence in sequences]),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **self._row_features(sequences),
        ).logits
        return self._sampler.choose(logits[:, -1], sequences)

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

    def _row_features(self, sequences: Rows[Sequence]) -> dict[str, torch.Tensor]:
        rows = [sequence.prompt.row_features for sequence in sequences]
        return {name: self._tensor([row[name] for row in rows]) for name in rows[0]}

    def _tensor(self, values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)


@torch.inference_mode()
def sample_cache(model: Any) -> Cache:
    """Return what the model remembers of two tokens, from which follows what it remembers of any number."""
    cache = new_cache(model.config.get_text_config(decoder=True))
    ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    model(input_ids=ids, past_key_values=cache, use_cache=True, **keep_last(model))
    return cache
