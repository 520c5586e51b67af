"""Who runs: a line of waiting sequences, those whose prompts are being read, and a dense list of running ones."""

import sys
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import count

from worker.engine.rows import Content, Rows
from worker.engine.runner import Prefill, Runner
from worker.engine.sequence import Sequence, SequenceStatus

FIRST = -sys.maxsize
"""Before every priority that a request may have."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The sequence whose prompt is being read."""

    sequence: Sequence
    row: int
    prefill: Prefill
    content: Content | None
    """What lies in the row at the end; None if nothing of it may be used again."""

    @property
    def known(self) -> Content | None:
        """What of that lies there already."""
        return None if self.content is None else self.content.first(self.prefill.num_tokens)


class Scheduler:
    """Lower priority numbers first, then first come, first served, into a fixed number of rows.

    The running sequences always fill rows 0 to n-1, so that the cache can be used as a view. Behind them lie those
    whose prompts' ends are read together, within one step; nobody finds anything of these before.
    """

    def __init__(self, runner: Runner, max_num_seqs: int, *, reuses: bool) -> None:
        self._runner = runner
        self._reuses = reuses
        self._rows = Rows(runner, max_num_seqs)
        self._line: list[tuple[int, int, Sequence]] = []
        self._arrivals = count()
        self._fronts = count(-1, -1)
        self._max_num_seqs = self._room = max_num_seqs
        self._is_on_trial = False
        self._loners: set[Sequence] = set()
        self.reading: Reading | None = None
        self.aside: list[Reading] = []
        """Those that wait to be read together, or with others that do; none between two steps."""
        self.running: list[Sequence] = []

    @property
    def num_waiting(self) -> int:
        """Sequences that no row was free for yet."""
        return len(self._line)

    @property
    def num_seated(self) -> int:
        """Sequences that run, or do so once their prompts' ends are read."""
        return self._rows.num_running

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._line or self.reading or self.running)

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in line."""
        heappush(self._line, (sequence.priority, next(self._arrivals), sequence))

    def next_in_line(self) -> Sequence | None:
        """Take the next sequence, if a row is free for it."""
        is_free = self._rows.has_room and self.num_seated < (1 if self._is_on_trial else self._room)
        return heappop(self._line)[2] if self._line and is_free else None

    def admit(self, sequence: Sequence) -> Reading:
        """Give a sequence a row, with as much in it as any row has of its tokens."""
        row, content = self._rows.num_running, self._content(sequence, sequence.num_tokens - 1)
        num_cached = self._rows.admit(content)
        sequence.num_cached_tokens = min(num_cached, len(sequence.prompt.token_ids))
        self.reading = Reading(sequence, row, self._runner.prefill(sequence, row, num_cached), content)
        return self.reading

    @property
    def may_gather(self) -> bool:
        """Whether the end of the prompt may be read with others': unless that broke, or its row isn't the next one."""
        reading = self.reading
        return reading is not None and reading.row == self._rows.num_running and reading.sequence not in self._loners

    def set_aside(self) -> None:
        """Go on to the next prompt; this one was read, or its end is read with others'."""
        assert self.reading is not None
        row = self._rows.num_running
        self._rows.start(self.reading.row)
        self.aside.append(replace(self.reading, row=row))
        self.reading = None

    def start(self) -> None:
        """Let the sequences run that were set aside, whose prompts have all been read."""
        for reading in self.aside:
            self._rows.keep(reading.row, reading.content)
            reading.sequence.status = SequenceStatus.RUNNING
            self.running.append(reading.sequence)
            self._loners.discard(reading.sequence)
        self.aside = []

    def part(self) -> None:
        """Put those that were set aside back to the front of the line, to be read alone; what was read stays."""
        if self.reading is not None:  # its row lies behind theirs
            self._rows.keep(self.reading.row, self.reading.known)
            heappush(self._line, (FIRST, next(self._fronts), self.reading.sequence))
            self.reading = None
        for reading in reversed(self.aside):
            self._rows.end(reading.row, reading.known)
            heappush(self._line, (FIRST, next(self._fronts), reading.sequence))
            self._loners.add(reading.sequence)
        self.aside = []

    def would_share(self, sequence: Sequence) -> bool:
        """Whether those aside, once they are read, spare it half of what it would have to read now, or more."""
        if not self.aside or (wanted := self._content(sequence, sequence.num_tokens - 1)) is None:
            return False
        num_found = self._rows.num_shared(wanted)
        contents = (reading.content for reading in self.aside)
        num_then = max(0 if content is None else content.shared(wanted) for content in contents)
        return num_then > num_found and 2 * (num_then - num_found) >= len(wanted) - num_found

    def seat(self, late: set[int]) -> list[Sequence]:
        """Bring the running sequences in late rows behind all others, and return those others."""
        num_seated = len(self.running) - len(late)
        behind = (row for row in range(num_seated, len(self.running)) if row not in late)
        for row, other in zip(sorted(row for row in late if row < num_seated), behind, strict=True):
            self._rows.swap(row, other)
            self.running[row], self.running[other] = self.running[other], self.running[row]
        return self.running[:num_seated]

    def find(self, sequence_id: str) -> Sequence | None:
        """The waiting or running sequence of that id."""
        reading = [self.reading.sequence] if self.reading else []
        waiting = [entry[2] for entry in self._line]
        return next((s for s in (*self.running, *reading, *waiting) if s.id == sequence_id), None)

    def remove(self, sequence: Sequence, *, is_sound: bool = True) -> None:
        """Take a sequence out wherever it stands; unless something broke, its row stays for others to begin with.

        With each that leaves, one more may run, up to the number of rows.
        """
        self._room = min(self._room + 1, self._max_num_seqs)
        self._loners.discard(sequence)
        if self.reading is not None and sequence is self.reading.sequence:
            self._rows.keep(self.reading.row, self.reading.known if is_sound else None)
            self.reading = None
        elif sequence in self.running:
            row, last = self.running.index(sequence), self.running.pop()
            if last is not sequence:
                self.running[row] = last
            self._rows.end(row, self._content(sequence, sequence.num_tokens - 1) if is_sound else None)
        else:
            self._line = [entry for entry in self._line if entry[2] is not sequence]
            heapify(self._line)

    def put_back(self, sequences: list[Sequence], room: int) -> None:
        """After a failed step, put all running sequences back into the line, and the newest to a trial of its own.

        When a batch begins to fail, the row that came last is the likeliest to be at fault.
        """
        *others, newest = sequences
        for sequence in (*reversed(others), newest):
            self._put_first(sequence)
        self._room, self._is_on_trial = room, True

    def wait_for_room(self, sequence: Sequence, room: int) -> None:
        """Put one that found no memory back to the front, and let no more run than do now."""
        self._put_first(sequence)
        self._room = room

    def acquit(self) -> None:
        """End the trial, if there is one: a step has succeeded."""
        self._is_on_trial = False

    def relax(self) -> None:
        """Let as many run as ever."""
        self._room = self._max_num_seqs

    def _put_first(self, sequence: Sequence) -> None:
        self.remove(sequence, is_sound=False)
        sequence.status = SequenceStatus.WAITING
        heappush(self._line, (FIRST, next(self._fronts), sequence))

    def _content(self, sequence: Sequence, num_tokens: int) -> Content | None:
        """Return what of a sequence lies in its row; None if nothing of it may be used again."""
        content = self._runner.content(sequence) if self._reuses else None
        return None if content is None else content.first(num_tokens)
