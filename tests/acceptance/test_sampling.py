"""How answers are chosen, through the whole walk, with the official client."""

import concurrent.futures

import pytest
import redis
from openai import BadRequestError

from shared import keys
from tests.acceptance.conftest import MODEL

IM_END = "768"
IMG = "770"
QUESTION = [{"role": "user", "content": "Tell me a story."}]


def ask(client, **options):
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 16, "temperature": 0} | options
    return client.chat.completions.create(**body)


def text(client, **options):
    return ask(client, **options).choices[0].message.content


def streamed(client, **options):
    """Each choice's text, end and scored tokens, as they add up."""
    choices = {}
    for chunk in ask(client, stream=True, **options):
        for part in chunk.choices:
            choice = choices.setdefault(part.index, {"text": "", "end": None, "scored": []})
            choice["text"] += part.delta.content or ""
            choice["end"] = part.finish_reason or choice["end"]
            choice["scored"] += part.logprobs.content if part.logprobs else []
    return choices


def scored(choice):
    return [(entry.token, entry.logprob, [top.token for top in entry.top_logprobs]) for entry in choice]


def test_several_choices_are_several_draws_of_one_prompt(client):
    options = {"n": 3, "temperature": 1.8, "seed": 5, "logprobs": True, "top_logprobs": 2, "max_tokens": 24}
    plain = ask(client, **options)
    stream = streamed(client, **options)

    assert [choice.index for choice in plain.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in plain.choices}) == 3
    assert {i: c["text"] for i, c in stream.items()} == {c.index: c.message.content for c in plain.choices}
    assert {i: c["end"] for i, c in stream.items()} == {c.index: c.finish_reason for c in plain.choices}
    for choice in plain.choices:
        again = scored(stream[choice.index]["scored"])
        assert [entry[0] for entry in again] == [entry.token for entry in choice.logprobs.content]
        assert [entry[1] for entry in again] == pytest.approx([e.logprob for e in choice.logprobs.content], abs=1e-3)
    assert plain.usage.prompt_tokens == ask(client).usage.prompt_tokens
    assert plain.usage.completion_tokens > 24


def test_first_choice_is_the_only_ones_answer(client):
    options = {"temperature": 1.8, "seed": 11}

    assert ask(client, n=4, **options).choices[0].message.content == text(client, **options)


def test_scored_tokens_are_the_text(client):
    (choice,) = ask(client, logprobs=True, top_logprobs=3, max_tokens=24).choices

    content = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in content).decode(errors="replace").strip() == choice.message.content
    assert all(entry.token == entry.top_logprobs[0].token for entry in content)  # the answer is greedy
    for entry in content:
        logprobs = [top.logprob for top in entry.top_logprobs]
        assert logprobs == sorted(logprobs, reverse=True)
        assert len(logprobs) == 3


def test_stop_string_cuts_the_scored_tokens_where_it_cuts_the_text(client):
    whole = ask(client, logprobs=True, max_tokens=24).choices[0]
    stop = whole.message.content[6:8]

    (cut,) = ask(client, logprobs=True, max_tokens=24, stop=[stop]).choices

    assert cut.finish_reason == "stop"
    shown = [entry.token for entry in cut.logprobs.content]
    assert shown == [entry.token for entry in whole.logprobs.content][: len(shown)]
    assert len("".join(shown).strip()) >= len(cut.message.content)
    assert len("".join(shown[:-1]).strip()) < len(cut.message.content) + 1


def test_bias_forces_a_token_and_forbids_one(client):
    first = ask(client, logprobs=True, top_logprobs=2, max_tokens=1).choices[0].logprobs.content[0]

    forced = ask(client, logit_bias={"300": 100}, max_tokens=5, logprobs=True).choices[0]

    assert len({entry.token for entry in forced.logprobs.content}) == 1
    assert forced.finish_reason == "length"
    assert forced.logprobs.content[0].token != first.token


def test_bias_of_a_token_that_does_not_exist_is_refused(client):
    with pytest.raises(BadRequestError, match="the model's tokens are 0 to") as refusal:
        ask(client, logit_bias={"999999": 1})

    assert refusal.value.param == "logit_bias"


@pytest.mark.parametrize(
    "penalty",
    [{"extra_body": {"repetition_penalty": 1.8}}, {"frequency_penalty": 2.0}, {"presence_penalty": 2.0}],
    ids=lambda penalty: "-".join(penalty),
)
def test_penalties_make_an_answer_less_repetitive(client, penalty):
    def tokens(**options):
        content = ask(client, logprobs=True, max_tokens=48, **options).choices[0].logprobs.content
        return [entry.token for entry in content]

    plain, varied = tokens(), tokens(**penalty)

    assert len({*varied}) / len(varied) > len({*plain}) / len(plain)


def test_answer_may_be_made_to_go_on(client):
    """A bias makes the model want to end; only one of the wishes lets it."""
    end = {"logit_bias": {IM_END: 100}}
    ended = ask(client, max_tokens=6, **end)
    later = ask(client, max_tokens=6, **end, extra_body={"min_tokens": 3})
    never = ask(client, max_tokens=6, **end, extra_body={"ignore_eos": True})

    assert [(a.usage.completion_tokens, a.choices[0].finish_reason) for a in (ended, later, never)] == [
        (1, "stop"),
        (4, "stop"),
        (6, "length"),
    ]


def test_rows_of_every_kind_at_once_answer_as_one_after_the_other(client):
    requests = [
        {},
        {"temperature": 1.5, "seed": 1},
        {"temperature": 1.5, "seed": 1, "extra_body": {"min_p": 0.05, "top_k": 30}},
        {"extra_body": {"repetition_penalty": 1.3}},
        {"frequency_penalty": 1.0, "presence_penalty": -0.5, "temperature": 0.9, "seed": 2},
        {"n": 2, "temperature": 1.9, "seed": 3},
        {"logit_bias": {"300": 4, "301": -100}},
        {"logprobs": True, "top_logprobs": 5},
    ]

    def texts(options):
        return [choice.message.content for choice in ask(client, **options).choices]

    alone = [texts(options) for options in requests]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(texts, requests))

    assert together == alone


def test_what_waits_for_text_is_kept_once_however_long_it_waits(client, stack):
    """Special tokens have no text: the log-probabilities of all of them would be told with the next word."""
    asked = {"logprobs": True, "top_logprobs": 20, "max_tokens": 300}
    sizes = []
    with redis.Redis.from_url(stack.redis_url) as server:
        for bias in ({}, {IMG: 100}):
            answer = ask(client, logit_bias={IM_END: -100} | bias, **asked)
            assert answer.usage.completion_tokens == 300
            sizes.append(server.memory_usage(keys.log(answer.id), samples=0))

    assert sizes[1] < 2 * sizes[0]
