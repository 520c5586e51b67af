"""Conversations through the whole walk, with the official client."""

import base64
import concurrent.futures
import http.client
import json
import time
from pathlib import Path

import pytest
from openai import AuthenticationError, BadRequestError, InternalServerError, NotFoundError

from tests.acceptance.conftest import MODEL
from tests.cases import INTERNVL2

MEDIA = INTERNVL2 / "media"


def ask(client, *content, stream=False, **options):
    messages = [{"role": "user", "content": list(content) if len(content) > 1 else content[0]}]
    options = {"model": MODEL, "max_tokens": 12} | options
    answer = client.chat.completions.create(messages=messages, stream=stream, **options)
    if not stream:
        return answer.choices[0].message.content
    return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)


def picture(media_url: str, name: str = "photo.jpg") -> dict:
    return {"type": "image_url", "image_url": {"url": f"{media_url}/{name}"}}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def data_uri(path: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def test_second_turn_sees_the_first_one(client, media_url):
    first = [{"role": "user", "content": [picture(media_url), text("What is this?")]}]
    answer = client.chat.completions.create(model=MODEL, messages=first, max_tokens=8).choices[0].message.content

    turns = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": "And the colour?"}]
    plain = client.chat.completions.create(model=MODEL, messages=turns, max_tokens=12)
    chunks = client.chat.completions.create(model=MODEL, messages=turns, max_tokens=12, stream=True)

    assert plain.usage.prompt_tokens > 200  # the picture of the first turn is in it
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == plain.choices[0].message.content


def test_every_form_of_a_picture_gives_the_same_answer(client, media_url):
    """As a part by URL or data URI, as an inline tag, and as a list with and without its tag."""
    question, url = "Please describe the image shortly.", f"{media_url}/photo.jpg"
    bare = base64.b64encode((MEDIA / "photo.jpg").read_bytes()).decode()
    expected = ask(client, picture(media_url), text(question))

    forms = {
        "data URI": ask(
            client, {"type": "image_url", "image_url": {"url": data_uri(MEDIA / "photo.jpg")}}, text(question)
        ),
        "inline tag": ask(client, f"<img>{url}</img>{question}"),
        "inline base64": ask(client, f"<img>{bare}</img>{question}"),
        "list and tag": ask(client, f"<image>{question}", extra_body={"images": [url]}),
        "list alone": ask(client, question, extra_body={"images": [bare]}),
    }

    assert forms == dict.fromkeys(forms, expected)


def test_every_form_of_a_clip_gives_the_same_answer(client, media_url):
    question, url = "What is the red panda doing?", f"{media_url}/clip.mp4"
    expected = ask(client, {"type": "video_url", "video_url": {"url": url}}, text(question))

    forms = {
        "inline tag": ask(client, f"<video>{url}</video>{question}"),
        "list and tag": ask(client, f"<video>{question}", extra_body={"videos": [url]}),
        "list alone": ask(client, question, extra_body={"videos": [url]}),
    }

    assert forms == dict.fromkeys(forms, expected)


def test_request_may_ask_for_fewer_tiles(client, media_url):
    def num_prompt_tokens(**wishes: int) -> int:
        messages = [{"role": "user", "content": [picture(media_url), text("What is this?")]}]
        completion = client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=1, extra_body={"mm_processor_kwargs": wishes}
        )
        return completion.usage.prompt_tokens

    assert num_prompt_tokens() - num_prompt_tokens(max_num=1) == 6 * 16  # of seven tiles one is left


def test_eight_mixed_requests_at_once_answer_as_one_after_the_other(client, media_url):
    clip = {"type": "video_url", "video_url": {"url": f"{media_url}/clip.mp4"}}
    requests = [
        (("Tell me a story.",), {}),
        ((picture(media_url), text("What is this?")), {"stream": True}),
        (("请介绍一下你自己。",), {"stream": True}),
        ((picture(media_url, "square.png"), picture(media_url), text("Compare them.")), {}),
        ((clip, text("What happens?")), {}),
        (("Seeded.",), {"temperature": 0.9, "seed": 7}),
        ((picture(media_url, "tall_odd.png"), text("Describe it.")), {"temperature": 1.2, "top_p": 0.8, "seed": 3}),
        (("Hello!",), {"temperature": 1.0, "top_k": 20, "seed": 11}),
    ]
    options = [
        {"max_tokens": 24}
        | {k: v for k, v in o.items() if k != "top_k"}
        | ({"extra_body": {"top_k": o["top_k"]}} if "top_k" in o else {})
        for _, o in requests
    ]

    alone = [ask(client, *content, **option) for (content, _), option in zip(requests, options, strict=True)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [
            pool.submit(ask, client, *content, **option) for (content, _), option in zip(requests, options, strict=True)
        ]
        together = [answer.result() for answer in running]

    assert together == alone
    assert len(set(alone)) == 8


def test_another_seed_gives_another_answer(client):
    answers = {ask(client, "Say something.", temperature=1.5, seed=seed, max_tokens=24) for seed in range(4)}

    assert len(answers) > 1


def test_stop_string_ends_the_answer_before_it_streamed_or_not(client):
    whole = ask(client, "Tell me a story.", max_tokens=24)
    stop = whole[5:8]

    plain = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Tell me a story."}], max_tokens=24, stop=[stop]
    )

    assert plain.choices[0].message.content == whole[: whole.index(stop)].strip()
    assert plain.choices[0].finish_reason == "stop"
    assert ask(client, "Tell me a story.", max_tokens=24, stop=stop, stream=True) == plain.choices[0].message.content


def test_models_are_listed_by_their_served_names(client):
    assert {model.id for model in client.models.list()} == {MODEL, "adapter", "adapter_all"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("content", "options", "param", "words"),
    [
        (["{corrupt}", "What is this?"], {}, "messages[0].content[0]", "picture"),
        (["<image><image>Compare."], {"extra_body": {"images": ["{media}/photo.jpg"]}}, "images", "2"),
        (["{unreachable}", "What?"], {}, "messages[0].content[0].image_url", ""),
        (["word " * 3000], {}, "messages", "2048"),
        (["hi"], {"max_tokens": 5000}, "max_tokens", "2048"),
        (["hi"], {"temperature": 9}, "temperature", "2"),
        (["hi"], {"n": 17}, "n", "16"),
        (["hi"], {"extra_body": {"mm_processor_kwargs": {"max_num": 13}}}, "mm_processor_kwargs.max_num", "12"),
        (
            ["hi"],
            {"extra_body": {"mm_processor_kwargs": {"use_image_id": True}}},
            "mm_processor_kwargs.use_image_id",
            "use_image_id",
        ),
        (["hi"], {"extra_body": {"beam": 2}}, "beam", "beam"),
    ],
    ids=[
        "corrupt",
        "tags",
        "unreachable",
        "long",
        "max_tokens",
        "temperature",
        "n",
        "max_num",
        "use_image_id",
        "unknown",
    ],
)
def test_bad_request_is_told_what_is_wrong(client, media_url, content, options, param, words, stream):
    corrupt = base64.b64encode((MEDIA / "photo.jpg").read_bytes()[:300]).decode()
    parts = {
        "{corrupt}": {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{corrupt}"}},
        "{unreachable}": {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/nothing.jpg"}},
    }
    options = json.loads(json.dumps(options).replace("{media}", media_url))
    asked = [parts[c] if c in parts else text(c) for c in content] if len(content) > 1 else content

    with pytest.raises(BadRequestError) as refusal:
        ask(client, *asked, stream=stream, **options)

    assert (refusal.value.param or "").startswith(param)
    assert words in refusal.value.message


def test_no_messages_at_all_is_refused(client):
    with pytest.raises(BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages=[])

    assert refusal.value.param == "messages"


def test_unknown_model_is_not_found_and_the_known_ones_are_named(client):
    with pytest.raises(NotFoundError) as refusal:
        ask(client, "hi", model="gpt-9")

    assert refusal.value.code == "model_not_found"
    assert MODEL in refusal.value.message


def test_bad_requests_cost_a_running_stream_nothing(client, media_url):
    question = (picture(media_url), text("Please describe the image shortly."))
    undisturbed = ask(client, *question, max_tokens=200)
    corrupt = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}

    def offend() -> int:
        try:
            ask(client, corrupt, text("?"))
        except BadRequestError:
            return 1
        return 0

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        good = pool.submit(ask, client, *question, max_tokens=200, stream=True)
        offences = [pool.submit(offend) for _ in range(8)]
        assert good.result() == undisturbed
        assert sum(offence.result() for offence in offences) == 8


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_client_frees_its_slot(new_stack, stream):
    """With one slot and a step of 50 ms, the next answer can only come once the first one's slot is free."""
    stack = new_stack()
    stack.start_gateway()
    stack.start("worker", "--model_type", "fake", "--max_num_seqs", "1", "--fake_itl_ms", "50")
    stack.wait_for_models("fake")
    body = {"model": "fake", "messages": [{"role": "user", "content": "on and on"}], "max_tokens": 2000}

    leaving = http.client.HTTPConnection("127.0.0.1", stack.port)
    leaving.request("POST", "/v1/chat/completions", json.dumps(body | {"stream": stream}))
    if stream:
        assert leaving.getresponse().readline().startswith(b"id:")
    else:
        time.sleep(0.3)  # the request is on its way; nothing tells when it runs
    leaving.close()
    began_s = time.monotonic()
    answer = ask(stack.client(), "quick", model="fake", max_tokens=2)

    assert answer == "quick quick"
    assert time.monotonic() - began_s < 5  # of the 100 s that the first answer would take


def test_without_a_live_worker_the_client_learns_it_at_once(new_stack):
    stack = new_stack()
    stack.start_gateway()
    worker = stack.start("worker", "--model_type", "fake")
    stack.wait_for_models("fake")
    worker.terminate()
    worker.wait(timeout=20)
    time.sleep(0.6)  # the gateway looks at the fleet twice a second

    began_s = time.monotonic()
    with pytest.raises(InternalServerError) as refusal:
        ask(stack.client(), "hi", model="fake")

    assert time.monotonic() - began_s < 2
    assert (refusal.value.status_code, refusal.value.code) == (503, "model_unavailable")
    assert int(refusal.value.response.headers["retry-after"]) > 0


def test_wrong_key_is_refused_and_the_right_one_is_not(new_stack):
    stack = new_stack()
    stack.start_gateway("--api_key", "secret")
    stack.start("worker", "--model_type", "fake")
    stack.wait_for_models("fake", api_key="secret")

    with pytest.raises(AuthenticationError) as refusal:
        ask(stack.client("wrong"), "hi", model="fake")

    assert refusal.value.code == "invalid_api_key"
    assert ask(stack.client("secret"), "hi", model="fake", max_tokens=1) == "hi"
