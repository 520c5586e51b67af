"""How a prompt gets into its row: in chunks, or whole where a model can't do otherwise."""

from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from worker.engine.adapters import AdapterSlots
from worker.engine.cache import Mask, SlotCache, new_cache
from worker.engine.call import Call, joined, record
from worker.engine.encoder import Encoded, Encoder
from worker.engine.prompt import Piece
from worker.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Reader:
    """What all prefills of a runner share."""

    model: Any
    decoder: Any
    config: Any
    cache: SlotCache
    adapters: AdapterSlots
    encoder: Encoder

    def inputs(self, sequence: Sequence, num_tokens: int) -> dict[str, Any]:
        """Return what the model's forward takes for the first tokens of one row, beside its media."""
        device, num_known = self.model.device, len(sequence.token_ids)
        ids = [*sequence.prompt.token_ids, *sequence.token_ids][:num_tokens]
        inputs = {"input_ids": torch.tensor([ids], device=device), "past_key_values": new_cache(self.config)}
        for name, feature in sequence.prompt.token_features.items():
            known = feature[:, -1:].expand(-1, num_known)
            inputs[name] = torch.cat([feature, known], dim=1)[:, :num_tokens].to(device)
        for name, value in sequence.prompt.row_features.items():
            inputs[name] = torch.tensor([value], device=device)
        return inputs | {"use_cache": True}

    def fill(self, chunk: dict[str, Any]) -> None:
        """Read a chunk into the rows that the cache was told of."""
        with self.cache.filling():
            self.decoder(**chunk, past_key_values=self.cache)


class ChunkedPrefill:
    """Encodes what no row and no memory holds, one piece at a time, then reads chunk by chunk; implements `Prefill`."""

    def __init__(self, reader: Reader, sequence: Sequence, row: int, num_cached: int) -> None:
        self.num_tokens = num_cached
        self._reader = reader
        self._sequence = sequence
        self._row = row
        self._num_wanted = sequence.num_tokens - 1
        self._encoded: dict[int, Encoded] = {}
        self._call: Call | None = None
        reader.cache.truncate(row, num_cached)

    @property
    def is_complete(self) -> bool:
        """Whether everything but the last token lies in the row, and its positions are known."""
        return self._call is not None and self.num_tokens == self._num_wanted

    @property
    def rest(self) -> int:
        """All that is left, once everything is encoded."""
        return 0 if self._call is None or self._call.constants is None else self._num_wanted - self.num_tokens

    @torch.inference_mode()
    def advance(self, budget: int) -> int:
        """Encode one piece of media, or read one chunk; return how many tokens' worth it was."""
        self._reader.adapters.select([self._sequence.adapter])
        if (piece := self._next_piece()) is not None:
            self._encoded[id(piece)] = self._reader.encoder.encode(piece, self._space)
            return len(piece.places)
        if self._call is None:
            self._call = self._record()
            self._check_beginning()
            return 1
        return self._read(self._call, budget)

    @property
    def _space(self) -> Any:
        return self._reader.adapters.identity(self._sequence.adapter)

    def _next_piece(self) -> Piece | None:
        """Return a piece that has to be encoded; what is remembered, or read already, is taken as it is."""
        if self._call is not None:
            return None
        for piece in self._pieces():
            if id(piece) not in self._encoded and not self._find(piece):
                return piece
        return None

    def _pieces(self) -> list[Piece]:
        return [piece for piece in self._sequence.prompt.pieces if self._reader.encoder.takes(piece)]

    def _find(self, piece: Piece) -> bool:
        encoder = self._reader.encoder
        is_read = piece.places[-1] < self.num_tokens
        found = (encoder.blank(piece) if is_read else None) or encoder.recall(piece, self._space)
        if found is not None:
            self._encoded[id(piece)] = found
        return found is not None

    def _record(self) -> Call:
        reader = self._reader
        encoded = [(piece, self._encoded.pop(id(piece))) for piece in self._pieces()]
        inputs = reader.inputs(self._sequence, self._sequence.num_tokens)
        media = reader.encoder.inputs(self._sequence.prompt.features, encoded)
        shifts = ShiftedPositions(reader.model)
        call = record(reader.model, reader.decoder, **inputs, **media)
        reader.cache.shift(self._row, shifts.take())
        return call

    def _check_beginning(self) -> None:
        """Begin anew if what lies in the row ends where this prompt can't be cut."""
        assert self._call is not None
        if not self._call.is_cut(self.num_tokens):
            self._call, self.num_tokens = None, 0
            self._reader.cache.truncate(self._row, 0)

    def _read(self, call: Call, budget: int) -> int:
        start, cache = self.num_tokens, self._reader.cache
        end = call.last_cut(start, min(start + budget, self._num_wanted))
        indices, mask = cache.extend(self._row, end - start)
        self._reader.fill(call.chunk(start, end, indices, mask))
        self.num_tokens = min(end, self._num_wanted)
        cache.truncate(self._row, self.num_tokens)  # the last token is fed by a decode step, seen before or not
        return end - start

    @property
    def terms(self) -> tuple[Any, Any]:
        """What prompts have to agree on to be read by one call: whatever has no column a token, and what has one."""
        assert self._call is not None
        return self._call.constants, self._call.axes

    @staticmethod
    @torch.inference_mode()
    def finish(prefills: "list[ChunkedPrefill]") -> None:
        """Read the rest of prompts that agree, in neighbouring rows, by one call of the language model."""
        if len(prefills) == 1:  # needs no mask, and no room but its own
            prefills[0].advance(prefills[0].rest)
            return
        first, counts = prefills[0], [prefill.rest for prefill in prefills]
        reader = first._reader
        reader.adapters.select([prefill._sequence.adapter for prefill in prefills])
        indices, mask = reader.cache.extend_all(first._row, counts)
        chunks = [
            prefill._part(count, row[None, :count], mask)
            for prefill, count, row in zip(prefills, counts, indices, strict=True)
        ]
        reader.fill(joined(chunks, first.terms[1]))
        for prefill, count in zip(prefills, counts, strict=True):
            prefill.num_tokens += count

    def _part(self, count: int, indices: torch.Tensor, mask: Mask) -> dict[str, Any]:
        assert self._call is not None
        return self._call.chunk(self.num_tokens, self.num_tokens + count, indices, mask)


class WholePrefill:
    """Reads everything in one forward of the model; implements `Prefill`."""

    num_tokens = 0
    rest = 0
    is_complete = False

    def __init__(self, reader: Reader, sequence: Sequence, row: int) -> None:
        self._reader = reader
        self._sequence = sequence
        self._row = row
        reader.cache.truncate(row, 0)

    @torch.inference_mode()
    def advance(self, budget: int) -> int:
        """Read all tokens but the last one, whatever the budget."""
        reader, num_wanted = self._reader, self._sequence.num_tokens - 1
        reader.adapters.select([self._sequence.adapter])
        shifts = ShiftedPositions(reader.model)
        if num_wanted > 0:
            inputs = reader.inputs(self._sequence, num_wanted)
            media = reader.encoder.inputs(self._sequence.prompt.features, ())
            reader.model(**inputs, **media, **keep_last(reader.model))
            reader.cache.put(self._row, inputs["past_key_values"])
        reader.cache.shift(self._row, shifts.take())
        self.num_tokens, self.is_complete = num_wanted, True
        return num_wanted


class ShiftedPositions:
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


def keep_last(model: Any) -> dict[str, int]:
    """Return the argument by which a forward computes the last token's logits only, where it knows it."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
