"""The runner of real models: any causal transformers model with full attention, on slot pools.

It knows no family: what is special about one stays in its model's own forward at prefill.
"""

from collections.abc import Sequence as Rows
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from worker.engine.adapters import AdapterSlots
from worker.engine.cache import SlotCache
from worker.engine.sampler import sample
from worker.engine.sequence import Sequence


class TorchRunner:
    """Prefills one sequence at a time and decodes all of them together; implements `Runner`.

    Created once the model is loaded; raises MemoryError if the pools don't fit beside it.
    """

    def __init__(self, model: Any, max_num_seqs: int, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.adapters = AdapterSlots(model)
        self._model = model
        self._device: torch.device = model.device
        config = model.config.get_text_config()
        self._cache = SlotCache(config, max_num_seqs, max_model_len, model.dtype, self._device)

    @torch.inference_mode()
    def prefill(self, sequence: Sequence, row: int) -> int:
        """Read prompt and answer so far through the model's own forward; return the next token."""
        self.adapters.select([sequence.adapter])
        prompt_cache = DynamicCache()
        logits = self._model(
            input_ids=self._tensor([[*sequence.prompt.token_ids, *sequence.token_ids]]),
            past_key_values=prompt_cache,
            use_cache=True,
            logits_to_keep=1,
            **{name: feature.to(self._device) for name, feature in sequence.prompt.features.items()},
            **self._row_features([sequence]),
        ).logits
        self._cache.put(row, prompt_cache)
        return self._choose(logits, [sequence])[0]

    @torch.inference_mode()
    def decode(self, sequences: list[Sequence]) -> list[int]:
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
        return self._choose(logits, sequences)

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Move one row's keys and values into a hole."""
        self._cache.move(source, target)

    def _row_features(self, sequences: Rows[Sequence]) -> dict[str, torch.Tensor]:
        rows = [sequence.prompt.row_features for sequence in sequences]
        return {name: self._tensor([row[name] for row in rows]) for name in rows[0]}

    def _choose(self, logits: torch.Tensor, sequences: Rows[Sequence]) -> list[int]:
        params = [sequence.sampling for sequence in sequences]
        return sample(logits[:, -1], params, [len(sequence.token_ids) for sequence in sequences])

    def _tensor(self, values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)
