"""What stands around a chat: what answers say of themselves, and the routes beside it, with the golden model behind."""

from tests.acceptance.conftest import ADAPTERS, MODEL
from tests.acceptance.test_chat import picture, text


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
