"""How far an answer is: what a worker that never saw it needs in order to go on with it."""

import msgspec


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A token that might have come, and how likely the model found it."""

    token_id: int
    logprob: float
    token: bytes
    """The token by itself; several may make up one character."""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token that came, and the likeliest ones at its place."""

    chosen: Candidate
    top: tuple[Candidate, ...] = ()


class ChoiceProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far one choice is."""

    token_ids: tuple[int, ...] = ()
    held: tuple[TokenLogprob, ...] = ()
    """Log-probabilities of its last tokens, whose text isn't shown yet; empty where none were asked for."""
    is_finished: bool = False
    """Whether its end was told."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far all choices of a job are; a choice that isn't listed has no token."""

    last_seq: int = 0
    choices: tuple[ChoiceProgress, ...] = ()

    def of_choice(self, index: int) -> ChoiceProgress:
        """How far this choice is."""
        return self.choices[index] if index < len(self.choices) else ChoiceProgress()
