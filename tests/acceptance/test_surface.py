"""What stands around a chat: what answers say of themselves, and the routes beside it, with the golden model behind."""

from collections import defaultdict

import httpx2
import pytest
from openai import BadRequestError

from tests.acceptance.conftest import ADAPTERS, MODEL
from tests.acceptance.test_chat import picture, text

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the worker


def ask(client, *content, model=MODEL, **options):
    messages = [{"role": "user", "content": [*content]}]
    return client.chat.completions.create(model=model, messages=messages, **{"max_tokens": 4} | options)


def test_usage_counts_the_tokens_that_stand_for_pictures(client, media_url):
    clip = {"type": "video_url", "video_url": {"url": f"{media_url}/clip.mp4"}}
    tiles = {"extra_body": {"mm_processor_kwargs": {"max_num": 1, "num_frames": 2}}}

    plain = ask(client, text("What is this?")).usage.prompt_tokens_details
    seen = ask(client, picture(media_url), text("What is this?"), **tiles).usage.prompt_tokens_details
    both = ask(client, picture(media_url), clip, text("What is this?"), **tiles).usage.prompt_tokens_details

    assert (plain.image_tokens, seen.image_tokens, both.image_tokens) == (0, 16, 3 * 16)
    assert plain.audio_tokens == seen.audio_tokens == 0


def test_fingerprint_is_the_models_and_each_adapters(client):
    named = {name: ask(client, text("hi"), model=name) for name in (MODEL, *ADAPTERS)}
    again = ask(client, text("something else"))

    fingerprints = {name: answer.system_fingerprint for name, answer in named.items()}
    assert again.system_fingerprint == fingerprints[MODEL]
    assert len({*fingerprints.values()}) == 3
    assert all(fingerprint.startswith("fp_") for fingerprint in fingerprints.values())
    assert [answer.model for answer in named.values()] == [MODEL, *ADAPTERS]


def complete(client, prompt, stream=False, **options):
    answer = client.completions.create(model=MODEL, prompt=prompt, stream=stream, **{"temperature": 0} | options)
    if not stream:
        return [choice.text for choice in answer.choices]
    texts = defaultdict(str)
    for chunk in answer:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    return [texts[index] for index in sorted(texts)]


def test_prompts_are_continued_together_as_each_alone_streamed_and_plain(client):
    prompts = ["Once upon a time", "<|im_start|>user\nhi<|im_end|>", "请介绍"]
    alone = [complete(client, prompt)[0] for prompt in prompts]

    assert complete(client, prompts) == complete(client, prompts, stream=True) == alone
    assert complete(client, prompts[0], echo=True) == [prompts[0] + alone[0]]
    assert len({*alone}) == 3


def test_log_probabilities_spell_the_continuation(client):
    asked = {"max_tokens": 8, "logprobs": 2, "temperature": 0, "extra_body": {"ignore_eos": True}}
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", **asked)
    (choice,) = answer.choices
    told = choice.logprobs

    assert answer.usage.completion_tokens == len(told.tokens) == len(told.text_offset) == 8
    assert all(
        chosen == max(top.values()) and 2 <= len(top) <= 3
        for chosen, top in zip(told.token_logprobs, told.top_logprobs, strict=True)
    )
    assert told.text_offset == sorted(told.text_offset)


def test_token_beyond_the_vocabulary_is_the_clients_to_mend(client):
    with pytest.raises(BadRequestError, match="the model's tokens are 0 to") as refusal:
        complete(client, [10**8])

    assert refusal.value.param == "prompt"


def tokenize(stack, **body):
    return httpx2.post(f"{stack.url}/tokenize", json={"model": MODEL} | body, timeout=60)


def test_tokens_of_a_text_are_those_that_are_continued(stack, client):
    told = tokenize(stack, prompt="Once <|im_end|>早", return_token_strs=True).json()
    bare = tokenize(stack, prompt="Once <|im_end|>早", add_special_tokens=False).json()
    answer = client.completions.create(model=MODEL, prompt="Once <|im_end|>早", max_tokens=1)
    text = httpx2.post(f"{stack.url}/detokenize", json={"model": MODEL, "tokens": bare["tokens"]}).json()

    assert told["count"] == len(told["tokens"]) == len(told["token_strs"]) == answer.usage.prompt_tokens
    assert (told["tokens"][1:], bare["token_strs"], bare["count"]) == (bare["tokens"], None, told["count"] - 1)
    assert told["token_strs"][0] == "<s>"
    assert text["prompt"].strip() == "Once <|im_end|>早"
    assert told["max_model_len"] > 100
    assert tokenize(stack, prompt="", add_special_tokens=False).json()["tokens"] == []


@pytest.mark.parametrize("model", [MODEL, ADAPTERS[0]])
def test_tokens_of_a_conversation_are_those_that_the_model_reads(stack, client, media_url, model):
    messages = [{"role": "user", "content": [picture(media_url), text("What is this?")]}]
    told = tokenize(stack, model=model, messages=messages).json()
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=6, temperature=0)
    again = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "What is this?"}], max_tokens=6, temperature=0
    )
    words = tokenize(stack, model=model, messages=[{"role": "user", "content": "What is this?"}]).json()

    assert told["count"] == answer.usage.prompt_tokens
    assert complete_with(client, model, words["tokens"]) == again.choices[0].message.content


def complete_with(client, model, tokens):
    answer = client.completions.create(model=model, prompt=tokens, max_tokens=6, temperature=0)
    return answer.choices[0].text.strip()


def test_tokens_are_told_while_every_row_is_taken(stack, client):
    """The engine has sixteen rows; a lookup waits for none."""
    asked = {"max_tokens": 1900, "temperature": 2.0, "extra_body": {"ignore_eos": True}, "stream": True}
    with client.completions.create(model=MODEL, prompt="a", n=16, **asked) as stream:
        told = [tokenize(stack, prompt="Once").status_code for _ in range(3)]
        ends = [choice.finish_reason for chunk, _ in zip(stream, range(200), strict=False) for choice in chunk.choices]

    assert told == [200, 200, 200]
    assert {*ends} == {None}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ({"prompt": "a", "images": ["x"]}, "images"),
        ({"messages": [{"role": "user", "content": "a"}], "add_special_tokens": True}, "add_special_tokens"),
        ({"messages": []}, "messages"),
        ({"prompt": "a", "temperature": 1}, "temperature"),
        ({"prompt": ["a"]}, "prompt"),
    ],
)
def test_wrong_question_to_the_tokenizer_is_refused_by_name(stack, body, param):
    answer = tokenize(stack, **body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_tokens_that_the_model_does_not_have_are_refused(stack):
    answer = httpx2.post(f"{stack.url}/detokenize", json={"model": MODEL, "tokens": [1, 10**7]})

    assert answer.status_code == 400
    assert "the model's tokens are 0 to" in answer.json()["error"]["message"]
