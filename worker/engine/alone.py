"""The runner of models that can't decode rows together: one sequence at a time through the model's own `generate()`.

`generate()` is a loop of its own, so it runs in a thread that hands over one token and waits to be asked for the next.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch
from transformers.generation import BaseStreamer, LogitsProcessor, LogitsProcessorList

from worker.engine.flight import Flight, Landed
from worker.engine.runner import MediaRoom, MediaStats, Prefill
from worker.engine.sampler import Sampler
from worker.engine.sequence import Sequence
from worker.engine.token import Token

Handed = Token | BaseException


class AloneRunner:
    """Implements `Runner` for one row; what `generate()` raises is raised where the token was asked for."""

    adapters = None
    media_stats = MediaStats()
    overlaps = False

    def __init__(self, model: Any, max_model_len: int, *, media_room: MediaRoom | None = None) -> None:
        self.media_room = media_room
        self.max_model_len = max_model_len
        self.vocab_size: int = model.config.get_text_config(decoder=True).vocab_size
        self._model = model
        self._sampler = Sampler()
        self._generation: _Generation | None = None

    def content(self, sequence: Sequence) -> None:
        """Nothing lies in a row that another sequence could begin with."""

    def prefill(self, sequence: Sequence, row: int, num_cached: int) -> "_Beginning":
        """Begin with prompt and answer so far, whatever ran before."""
        self.end()
        self._generation = _Generation(lambda generation: self._generate(sequence, generation))
        return _Beginning()

    def read(self, prefills: list[Prefill]) -> None:
        """Nothing is left when a prefill has begun."""

    def launch(self, sequences: list[Sequence], before: Flight | None) -> Landed:
        """Fetch the next token of the only sequence."""
        assert self._generation is not None
        return Landed(sequences, [self._generation.next_token()])

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Nothing lies in a row."""

    def swap(self, row: int, other: int) -> None:
        """Nothing lies in a row."""

    def end(self) -> None:
        """Drop what was begun."""
        if self._generation is not None:
            self._generation.end()
            self._generation = None

    @torch.inference_mode()
    def _generate(self, sequence: Sequence, generation: "_Generation") -> None:
        choice = _Choice(self._sampler, sequence)
        self._model.generate(
            **self._inputs(sequence),
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # the checkpoint's own stands among the sequence's parameters
            max_new_tokens=sequence.max_tokens - len(sequence.token_ids),
            logits_processor=LogitsProcessorList([choice]),
            streamer=_Handover(generation, choice),
        )

    def _inputs(self, sequence: Sequence) -> dict[str, Any]:
        prompt, known = sequence.prompt, sequence.token_ids
        features = {**prompt.features, **prompt.token_features}
        if self._model.config.is_encoder_decoder:
            ids = list(prompt.token_ids)
            if known:
                features["decoder_input_ids"] = torch.tensor([[self._start_id(), *known]])
        else:
            ids = [*prompt.token_ids, *known]
            for name, feature in prompt.token_features.items():
                features[name] = torch.cat([feature, feature[:, -1:].expand(-1, len(known))], dim=1)
        features["input_ids"] = torch.tensor([ids])
        return {
            name: feature.to(self._model.device) if isinstance(feature, torch.Tensor) else feature
            for name, feature in features.items()
        }

    def _start_id(self) -> int:
        config = self._model.generation_config
        start_id = config.decoder_start_token_id
        return int(config.bos_token_id if start_id is None else start_id)


class _Beginning:
    """`generate()` reads the prompt with its first token; implements `Prefill`."""

    num_tokens = 0
    rest = 0
    is_complete = True

    def advance(self, budget: int) -> int:
        """There is nothing to read apart."""
        raise AssertionError("generate() reads the whole prompt")


class _Ended(Exception):
    """Nobody wants the rest: unwinds `generate()`."""


class _Generation:
    """One call of `generate()` in a thread of its own, in step with whoever asks for tokens."""

    def __init__(self, run: "Callable[[_Generation], None]") -> None:
        self._tokens: SimpleQueue[Handed] = SimpleQueue()
        self._demands: SimpleQueue[bool] = SimpleQueue()
        self._run = run
        self._thread = threading.Thread(target=self._work, name="generate", daemon=True)
        self._thread.start()

    def next_token(self) -> Token:
        """Let `generate()` go on until its next token, and return it."""
        self._demands.put(True)
        token = self._tokens.get()
        if isinstance(token, BaseException):
            raise token
        return token

    def end(self) -> None:
        """Let `generate()` go no further, and wait until it is out."""
        self._demands.put(False)
        self._thread.join()

    def wait_for_demand(self) -> None:
        """Block until a token is asked for."""
        if not self._demands.get():
            raise _Ended

    def hand_over(self, token: Handed) -> None:
        """Give a token, or what was raised instead, to whoever asked."""
        self._tokens.put(token)

    def _work(self) -> None:
        try:
            self.wait_for_demand()
            self._run(self)
            self.wait_for_demand()
            raise RuntimeError("generate() ended before the answer did")
        except _Ended:
            return
        except Exception as error:  # noqa: BLE001  raised again in the engine's thread, whatever it is
            self.hand_over(error)


class _Choice(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Chooses the token as the engine does for rows, so that the greedy search can but take it."""

    def __init__(self, sampler: Sampler, sequence: Sequence) -> None:
        self._sampler = sampler
        self._sequence = sequence
        self.token = Token(-1)
        """The one chosen last."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of which only the chosen token's is finite."""
        (self.token,) = self._sampler.choose(scores, [self._sequence])  # whoever asked has pushed all before it
        return torch.full_like(scores, -torch.inf).index_fill_(
            1, torch.tensor([self.token.id], device=scores.device), 0.0
        )


class _Handover(BaseStreamer):  # type: ignore[misc]  # transformers is untyped
    """Is told of each token by `generate()`, of which the first call brings the prompt."""

    def __init__(self, generation: _Generation, choice: _Choice) -> None:
        self._generation = generation
        self._choice = choice
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """Hand one token over and wait for the next demand."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._generation.hand_over(self._choice.token)
        self._generation.wait_for_demand()

    def end(self) -> None:
        """Nothing is held back."""
