"""What a job has to say and hasn't said yet, in the events that are made of it."""

import random

import pytest

from shared.progress import Candidate, Progress, TokenLogprob
from shared.tally import Tally
from tests.worker.fleet import make_job
from worker.lease import Claim
from worker.outbox import Outbox

JOB = make_job("words")
CLAIM = Claim(JOB.id, attempt=1, num_lost=0, score=0, holder="worker", has_log=False)


def scored(token_id):
    return TokenLogprob(Candidate(token_id, -0.5, b"?"))


def new_outbox(progress):
    outbox = Outbox(JOB, CLAIM)
    outbox.resume(progress)
    return outbox


@pytest.mark.parametrize("seed", range(20))
def test_events_tell_what_is_held_however_steps_are_joined_and_attempts_follow_each_other(seed):
    dice, tally = random.Random(seed), Tally(Progress())
    outbox, waiting, told, num_kept = new_outbox(Progress()), [], [], 0
    for token_id in range(200):
        waiting.append(token_id)
        num_told = dice.choice((0, 0, 0, 1, 2, len(waiting)))
        shown, waiting = waiting[:num_told], waiting[num_told:]
        held = waiting[-1:] if waiting and waiting[-1] == token_id else []
        outbox.extend(0, "", (token_id,), tuple(map(scored, shown)), tuple(map(scored, held)))
        if dice.random() < 0.4:
            for event in outbox.take():
                tally.add(event)
                told += [logprob.chosen.token_id for logprob in event.logprobs]
                num_kept += len(event.logprobs) + len(event.held)
            assert [logprob.chosen.token_id for logprob in tally.progress().of_choice(0).held] == waiting
            if dice.random() < 0.2:
                outbox = new_outbox(tally.progress())

    assert told == [*range(len(told))]
    assert len(told) > 100
    assert num_kept <= 2 * 200
