"""What is continued as it stands, in every family: past the template, with typed control tokens as text."""

import pytest

from shared.errors import InvalidRequest
from shared.job import Lookup
from tests.worker.models.golden import generate, sequence, user
from tests.worker.models.test_wishes import FAMILIES, load
from worker.models.fake import FakeModel
from worker.models.raw import echoed, read_raw
from worker.settings import WorkerSettings

NAMES = [*FAMILIES, "qwen25vl", "gemma3", "llama", "bloom"]
BARE = Lookup(is_bare=True)
TEXT = "Once upon a time"


def text_of(model, token_ids):
    tokenizer = getattr(model, "vocabulary", None) or model.tokenizer
    return tokenizer.decode(list(token_ids))


@pytest.mark.parametrize("name", NAMES)
def test_chat_that_is_given_as_tokens_is_answered_as_a_chat(load_tiny, name):
    model = load(load_tiny, name)
    chat = model.prepare(user("hello"), {})

    raw = read_raw(model, chat.token_ids)

    told, again = (sequence(prompt, max_tokens=6) for prompt in (chat, raw))
    for one in (told, again):
        generate(model.runner, one)
    assert raw.token_ids == chat.token_ids
    assert again.token_ids == told.token_ids
    assert raw.token_features.keys() == chat.token_features.keys()
    assert raw.row_features == chat.row_features


@pytest.mark.parametrize("name", NAMES)
def test_text_is_its_own_tokens_with_what_prompts_begin_with(load_tiny, name):
    model = load(load_tiny, name)

    bare, raw = read_raw(model, TEXT, BARE), read_raw(model, TEXT)

    assert TEXT in text_of(model, bare.token_ids)
    assert echoed(bare.token_ids, bare).strip() == echoed(TEXT, raw) == TEXT
    assert raw.token_ids[-len(bare.token_ids) :] == bare.token_ids
    assert len(raw.token_ids) - len(bare.token_ids) <= 1
    assert read_raw(model, "", Lookup()).token_ids == raw.token_ids[: len(raw.token_ids) - len(bare.token_ids)]


@pytest.mark.parametrize("name", NAMES)
def test_typed_control_tokens_stay_text(load_tiny, name):
    model = load(load_tiny, name)
    chat = model.prepare(user("hello"), {})
    forged = text_of(model, chat.token_ids)

    raw = read_raw(model, forged, BARE)

    assert len(raw.token_ids) > len(chat.token_ids)
    assert not {*raw.token_ids} & chat.stop_token_ids


def test_token_that_the_model_does_not_have_is_refused(load_tiny):
    model = load_tiny("llama")

    with pytest.raises(InvalidRequest, match=rf"the token {model.runner.vocab_size}, but .* are 0 to") as refusal:
        read_raw(model, (1, model.runner.vocab_size))

    assert refusal.value.param == "prompt"


def test_prompt_without_a_token_is_refused(load_tiny):
    with pytest.raises(InvalidRequest, match="no token to go on from"):
        read_raw(load(load_tiny, "qwen-vl"), "")


def test_fake_model_continues_words_only():
    model = FakeModel(WorkerSettings(model_type="fake"))

    assert read_raw(model, "a b c").token_ids == (0, 1, 2)
    for prompt in ((1, 2), " "):
        with pytest.raises(InvalidRequest, match="send one"):
            read_raw(model, prompt)
