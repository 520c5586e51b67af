"""From events to progress: a gateway keeps count of an open job, a worker counts anew from the log."""

from dataclasses import dataclass, field

from shared.events import ChoiceFinished, JobEvent, TextDelta
from shared.progress import ChoiceProgress, Progress, TokenLogprob


@dataclass(slots=True)
class _Choice:
    token_ids: list[int] = field(default_factory=list)
    held: tuple[TokenLogprob, ...] = ()
    is_finished: bool = False


class Tally:
    """What the events of one job say so far, added in order."""

    def __init__(self, before: Progress) -> None:
        self._last_seq = before.last_seq
        self._choices = [_Choice([*known.token_ids], known.held, known.is_finished) for known in before.choices]

    def add(self, event: JobEvent) -> None:
        """Count the next event."""
        self._last_seq = event.seq
        match event:
            case TextDelta():
                choice = self._choice(event.index)
                choice.token_ids += event.token_ids
                choice.held = choice.held[len(event.logprobs) :] + event.held
            case ChoiceFinished():
                self._choice(event.index).is_finished = True

    def progress(self) -> Progress:
        """How far the job is."""
        known = [
            ChoiceProgress(token_ids=tuple(choice.token_ids), held=choice.held, is_finished=choice.is_finished)
            for choice in self._choices
        ]
        return Progress(last_seq=self._last_seq, choices=tuple(known))

    def _choice(self, index: int) -> _Choice:
        while len(self._choices) <= index:
            self._choices.append(_Choice())
        return self._choices[index]
