"""Several answers to one request, and the log-probabilities of their tokens, as clients get them."""

import httpx2
import pytest
from openai import BadRequestError

from api.mailbox import MAX_WAITING, Mailbox
from shared.events import ChoiceFinished, FinishReason, TextDelta
from shared.progress import Candidate, ChoiceProgress, Progress, TokenLogprob
from shared.tally import Tally
from tests.api.conftest import asking, until
from tests.api.standin import DEFAULTS, StandIn
from tests.api.test_chat import ask

RED = TokenLogprob(Candidate(5, -0.25, b" red"), (Candidate(5, -0.25, b" red"), Candidate(9, -2.5, b"\xe6")))
BLUE = TokenLogprob(Candidate(9, -2.5, b"\xe6"))


async def answered(client, worker, **fields):
    """The job that a request became."""
    async with asking(ask(client, **fields)) as answer:
        job = await worker.take()
        await worker.say(job, "ok")
        for index in range(job.n - 1):
            await worker.finish_choice(job, index)
        await worker.finish(job, index=job.n - 1)
        await answer
    return job


async def is_served(client, name):
    return any(model.id == name for model in (await client.models.list()).data)


async def speak(worker, job):
    """Two choices in turns; the second one ends first."""
    await worker.say(job, "One", index=0)
    await worker.say(job, "Two", index=1)
    await worker.finish_choice(job, 1, FinishReason.LENGTH)
    await worker.say(job, " red", index=0, logprobs=(RED,))
    await worker.finish(job, FinishReason.STOP, index=0)


async def test_every_parameter_reaches_the_worker(client, worker):
    more = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "min_tokens": 3, "ignore_eos": True}
    job = await answered(
        client,
        worker,
        n=2,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"7": -100, "8": 2.5},
        logprobs=True,
        top_logprobs=4,
        extra_body=more,
    )

    sampling = job.sampling
    assert {name: getattr(sampling, name) for name in more} == more
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.num_logprobs) == (0.5, -0.5, 4)
    assert sampling.logit_bias == ((7, -100.0), (8, 2.5))
    assert job.n == 2


async def test_models_own_repetition_penalty_goes_with_its_own_sampling(broker, client):
    """It samples; a client that asks for the plain greedy answer gets it."""
    worker = StandIn(broker, "penalized")
    await worker.beat(sampling={"repetition_penalty": 1.1})
    await until(lambda: is_served(client, "penalized"))

    own = await answered(client, worker, model="penalized")
    greedy = await answered(client, worker, model="penalized", temperature=0)
    both = await answered(client, worker, model="penalized", temperature=0, extra_body={"repetition_penalty": 1.3})

    penalties = [job.sampling.repetition_penalty for job in (own, greedy, both)]
    assert penalties == [1.1, 1.0, 1.3]
    assert own.sampling.temperature == DEFAULTS.temperature


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"n": 17}, "n", "at most 16"),
        ({"top_logprobs": 3}, "top_logprobs", "logprobs is true"),
        ({"max_tokens": 3, "extra_body": {"min_tokens": 4}}, "min_tokens", "at most 3"),
    ],
)
async def test_what_cannot_be_is_refused(client, worker, fields, param, says):
    with pytest.raises(BadRequestError, match=says) as refusal:
        await ask(client, **fields)

    assert refusal.value.param == param


async def test_plain_answer_has_every_choice_with_its_own_end(client, worker):
    async with asking(ask(client, n=2, logprobs=True, top_logprobs=2)) as answer:
        await speak(worker, await worker.take())
        completion = await answer

    first, second = completion.choices
    assert [(c.index, c.message.content, c.finish_reason) for c in completion.choices] == [
        (0, "One red", "stop"),
        (1, "Two", "length"),
    ]
    (red,) = first.logprobs.content
    assert (red.token, red.logprob, bytes(red.bytes)) == (" red", -0.25, b" red")
    assert [(top.token, top.logprob, bytes(top.bytes)) for top in red.top_logprobs] == [
        (" red", -0.25, b" red"),
        ("\ufffd", -2.5, b"\xe6"),
    ]
    assert second.logprobs.content == []


async def test_unasked_log_probabilities_are_null(client, worker):
    async with asking(ask(client)) as answer:
        await worker.answer("ok")
        completion = await answer

    assert completion.choices[0].logprobs is None


async def test_stream_has_one_choice_a_chunk_and_folds_to_the_plain_answer(client, worker):
    async with asking(ask(client, n=2, logprobs=True, stream=True)) as answer:
        await speak(worker, await worker.take())
        chunks = [chunk.choices async for chunk in await answer]

    assert all(len(choices) == 1 for choices in chunks)
    said = [(c.index, c.delta.role, c.delta.content, c.finish_reason) for (c,) in chunks]
    assert said == [
        (0, "assistant", "", None),
        (1, "assistant", "", None),
        (0, None, "One", None),
        (1, None, "Two", None),
        (1, None, None, "length"),
        (0, None, " red", None),
        (0, None, None, "stop"),
    ]
    scored = [c.logprobs.content for (c,) in chunks if c.logprobs]
    assert [[entry.token for entry in content] for content in scored] == [[" red"]]


async def test_stream_of_several_choices_goes_on_after_any_frame(gateway, client, worker):
    """A frame's id says how far each choice is, so that a cut between two of them repeats nothing."""
    async with asking(ask(client, n=2, stream=True)) as answer:
        job = await worker.take()
        await speak(worker, job)
        async for _ in await answer:
            pass
    url = f"{gateway.url}/v1/chat/completions/{job.id}/events"

    async with httpx2.AsyncClient() as bare:
        whole = frames_of((await bare.get(url)).text)
        rests = [
            frames_of((await bare.get(url, headers={"Last-Event-ID": frame_id})).text) for frame_id, _ in whole[:-1]
        ]

    assert [frame_id for frame_id, _ in whole] == ["1,0", "1,1", "2,1", "2,3", "2,4", "5,4", "6,4", ""]
    assert rests == [whole[i:] for i in range(1, len(whole))]


def frames_of(stream: str) -> list[tuple[str, str]]:
    fields = [dict(line.split(": ", 1) for line in frame.splitlines()) for frame in stream.split("\n\n") if frame]
    return [(frame.get("id", ""), frame["data"]) for frame in fields if "data" in frame]


async def test_id_of_another_number_of_choices_is_refused(gateway, client, worker):
    async with asking(ask(client, n=2, stream=True)) as answer:
        job = await worker.take()
        await speak(worker, job)
        await answer
    async with httpx2.AsyncClient() as bare:
        refused = await bare.get(f"{gateway.url}/v1/chat/completions/{job.id}/events", headers={"Last-Event-ID": "4"})

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID")


def named(seq):
    return {"job_id": "j", "attempt": 1, "seq": seq}


async def test_slow_reader_of_several_choices_waits_with_a_bounded_number_of_events():
    mailbox, num = Mailbox("j", redis=None, requeue=None), 3000
    for seq in range(1, num + 1):
        mailbox.put(TextDelta(**named(seq), text=f"{seq} ", token_ids=(seq,), index=seq % 3, logprobs=(RED,)))
        assert len(mailbox._waiting) <= MAX_WAITING + 3

    events = await mailbox.take()

    for index in range(3):
        words = "".join(event.text for event in events if event.index == index).split()
        assert [int(word) for word in words] == [seq for seq in range(1, num + 1) if seq % 3 == index]
    assert sum(len(event.logprobs) for event in events) == num


def test_tally_tells_what_another_worker_needs():
    tally = Tally(Progress(last_seq=4, choices=(ChoiceProgress(token_ids=(1, 2), held=(RED,)),)))
    for event in (
        TextDelta(**named(5), text="", token_ids=(7,), index=2, held=(RED,)),
        TextDelta(**named(6), text="x", token_ids=(3,), index=0, logprobs=(RED,), held=(BLUE,)),
        TextDelta(**named(7), text="", token_ids=(8,), index=2, held=(BLUE,)),
        ChoiceFinished(**named(8), index=2, reason=FinishReason.LENGTH),
    ):
        tally.add(event)

    assert tally.progress() == Progress(
        last_seq=8,
        choices=(
            ChoiceProgress(token_ids=(1, 2, 3), held=(BLUE,)),
            ChoiceProgress(),
            ChoiceProgress(token_ids=(7, 8), held=(RED, BLUE), is_finished=True),
        ),
    )
