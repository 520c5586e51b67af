"""The runner of real models: any causal transformers model that can decode rows at positions of their own.

It knows no family: what is special about one stays in its model's own forward at prefill.
"""

from collections.abc import Sequence as Rows
from inspect import signature
from typing import Any

import torch
from transformers.cache_utils import Cache

from worker.engine.adapters import AdapterSlots
from worker.engine.cache import SlotCache, new_cache
from worker.engine.sampler import Sampler
from worker.engine.sequence import Sequence
from worker.engine.token import Token


class TorchRunner:
    """Prefills one sequence at a time and decodes all of them together; implements `Runner`.

    Created once the model is loaded; raises MemoryError if the pools don't fit beside it.
    """

    def __init__(self, model: Any, max_num_seqs: int, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.adapters = AdapterSlots(model)
        self._model = model
        self._device: torch.device = model.device
        self._config = model.config.get_text_config(decoder=True)
        self.vocab_size: int = self._config.vocab_size
        self._sampler = Sampler()
        self._cache = SlotCache(self._config, sample_cache(model), max_num_seqs, max_model_len)

    @torch.inference_mode()
    def prefill(self, sequence: Sequence, row: int) -> Token:
        """Read prompt and answer so far through the model's own forward; return the next token."""
        self.adapters.select([sequence.adapter])
        prompt_cache = new_cache(self._config)
        shifts = _ShiftedPositions(self._model)
        logits = self._model(
            input_ids=self._tensor([[*sequence.prompt.token_ids, *sequence.token_ids]]),
            past_key_values=prompt_cache,
            use_cache=True,
            **keep_last(self._model),
            **self._features(sequence),
            **self._row_features([sequence]),
        ).logits
        self._cache.put(row, prompt_cache, shifts.take())
        return self._sampler.choose(logits[:, -1], [sequence])[0]

    @torch.inference_mode()
    def decode(self, sequences: list[Sequence]) -> list[Token]:
        """Feed each row its last token; return the next token of each."""
        self.adapters.select([sequence.adapter for sequence in sequences])
        positions, mask = self._cache.step(len(sequences))
        logits = self._model(
            input_ids=self._tensor([[sequence.last_token_id] for sequence in sequences]),
            position_ids=positions[:, None],
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **self._row_features(sequences),
        ).logits
        return self._sampler.choose(logits[:, -1], sequences)

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Move one row's keys and values into a hole."""
        self._cache.move(source, target)

    def _features(self, sequence: Sequence) -> dict[str, Any]:
        placed = {
            name: feature.to(self._device) if isinstance(feature, torch.Tensor) else feature
            for name, feature in sequence.prompt.features.items()
        }
        for name, feature in sequence.prompt.token_features.items():
            known = feature[:, -1:].expand(-1, len(sequence.token_ids))
            placed[name] = torch.cat([feature, known], dim=1).to(self._device)
        return placed

    def _row_features(self, sequences: Rows[Sequence]) -> dict[str, torch.Tensor]:
        rows = [sequence.prompt.row_features for sequence in sequences]
        return {name: self._tensor([row[name] for row in rows]) for name in rows[0]}

    def _tensor(self, values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)


class _ShiftedPositions:
    """What a prefill leaves on models whose pictures take fewer positions than tokens (M-RoPE)."""

    def __init__(self, model: Any) -> None:
        owners = (model, getattr(model, "model", None))
        self._owner: Any = next((owner for owner in owners if hasattr(owner, "rope_deltas")), None)
        if self._owner is not None:
            self._owner.rope_deltas = None  # or the last prompt's would be taken for this one's

    def take(self) -> int:
        """Return what the answer's positions are off its tokens' indices."""
        deltas = None if self._owner is None else self._owner.rope_deltas
        return 0 if deltas is None else int(deltas.flatten()[0])


@torch.inference_mode()
def sample_cache(model: Any) -> Cache:
    """Return what the model remembers of two tokens, from which follows what it remembers of any number."""
    cache = new_cache(model.config.get_text_config(decoder=True))
    ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    model(input_ids=ids, past_key_values=cache, use_cache=True, **keep_last(model))
    return cache


def keep_last(model: Any) -> dict[str, int]:
    """Return the argument by which a forward computes the last token's logits only, where it knows it."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
