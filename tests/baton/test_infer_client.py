"""InferClient: many conversations at once."""

import time

import pytest
from PIL import Image

from baton import HTTPError, InferClient, InferRequest, InferStats, RequestConfig
from baton.embedded import free_port
from tests.acceptance.conftest import MODEL
from tests.baton.conftest import API_KEY
from tests.cases import INTERNVL2, read_cases

CASES = read_cases(INTERNVL2)
MEDIA = INTERNVL2 / "media"
GREEDY = RequestConfig(max_tokens=12, temperature=0)
MIXED = ("image_photo", "text_only", "image_square", "two_images", "text_chinese", "multiturn_image_both", "video")


@pytest.fixture
def client(api_url) -> InferClient:
    return InferClient(base_url=api_url)


def say(*words: str) -> list[InferRequest]:
    return [InferRequest([{"role": "user", "content": word}]) for word in words]


def request_of(case) -> InferRequest:
    """The case with its media as paths of this machine."""
    return InferRequest([message | {"content": with_paths(message["content"])} for message in case.facts["messages"]])


def with_paths(content):
    if isinstance(content, str):
        return content
    kinds = [(part["type"], part) for part in content]
    return [p if k == "text" else {"type": k, k: {"url": str(INTERNVL2 / p[k]["url"])}} for k, p in kinds]


def said(answer) -> str:
    return answer.choices[0].message.content


def test_many_requests_at_once_keep_their_order(client):
    names = [MIXED[i % len(MIXED)] for i in range(32)]

    answers = client.infer([request_of(CASES[name]) for name in names], GREEDY, model=MODEL)

    assert [said(answer) for answer in answers] == [CASES[name].facts["greedy_text"] for name in names]


def test_many_streams_at_once_keep_their_order(client):
    names = [MIXED[i % len(MIXED)] for i in range(8)]
    config = RequestConfig(max_tokens=12, temperature=0, stream=True)

    streams = client.infer([request_of(CASES[name]) for name in names], config, model=MODEL)
    texts = ["".join(chunk.choices[0].delta.content for chunk in stream) for stream in streams]

    assert texts == [CASES[name].facts["greedy_text"] for name in names]


def test_streams_run_at_once_though_one_is_read_after_the_other(canned):
    server = canned('data: {"choices":[{"delta":{"content":"yes"}}]}\n\ndata: [DONE]\n\n', takes_s=0.1)
    client = InferClient(base_url=server.url, max_connections=3)

    streams = client.infer(say(*"abcdef"), RequestConfig(stream=True), model="m")
    texts = ["".join(chunk.choices[0].delta.content for chunk in stream) for stream in streams]

    assert texts == ["yes"] * 6
    assert server.max_running == 3


def test_stream_that_is_left_frees_its_place(client):
    config = RequestConfig(max_tokens=2000, stream=True)
    (stream,) = client.infer(say("on and on"), config, model="slow")
    next(stream)
    stream.close()

    began_s = time.monotonic()
    (answer,) = client.infer(say("quick"), RequestConfig(max_tokens=1), model="slow")

    assert said(answer) == "quick"
    assert time.monotonic() - began_s < 10  # of the 100 s that the first one would take


def test_picture_may_be_an_object_in_a_part_or_in_the_list(client):
    question = {"type": "text", "text": "Please describe the image shortly."}
    with Image.open(MEDIA / "square.png") as picture:
        part = InferRequest([{"role": "user", "content": [{"type": "image", "image": picture}, question]}])
        listed = InferRequest([{"role": "user", "content": "<image>" + question["text"]}], images=[picture])
        answers = client.infer([part, listed] * 4, GREEDY, model=MODEL, use_tqdm=False)

    assert {said(answer) for answer in answers} == {CASES["image_square"].facts["greedy_text"]}


def test_first_failure_is_raised_or_stands_in_its_place(client, api_url):
    lenient = InferClient(base_url=api_url, strict=False)
    requests = say("one", "", "three")

    with pytest.raises(HTTPError, match="no words"):
        client.infer(requests, RequestConfig(max_tokens=1), model="fake")
    first, second, third = lenient.infer(requests, RequestConfig(max_tokens=1), model="fake")

    assert (said(first), said(third)) == ("one", "three")
    assert isinstance(second, HTTPError)
    assert second.status_code == 400


def test_failure_of_a_stream_is_its_readers(client):
    good, bad = client.infer(say("one", ""), RequestConfig(max_tokens=1, stream=True), model="fake")

    with pytest.raises(HTTPError, match="no words"):
        next(bad)
    assert "".join(chunk.choices[0].delta.content for chunk in good) == "one"


def test_file_that_is_not_there_is_an_error_of_its_request(client, tmp_path):
    with pytest.raises(FileNotFoundError):
        client.infer([InferRequest([], images=[tmp_path / "nothing.png"])], model=MODEL)


async def test_one_answer_without_waiting(client):
    (request,) = say("one two")

    answer = await client.infer_async(request, RequestConfig(max_tokens=2), model="fake")
    chunks = await client.infer_async(request, RequestConfig(max_tokens=2, stream=True), model="fake")

    assert said(answer) == "one two"
    assert "".join([chunk.choices[0].delta.content async for chunk in chunks]) == "one two"


async def test_it_works_within_a_running_event_loop_as_in_a_notebook(client):
    assert client.models == ["fake", MODEL, "slow"]
    assert [said(a) for a in client.infer(say("one", "two"), RequestConfig(max_tokens=1), model="fake")] == [
        "one",
        "two",
    ]


def test_model_may_be_left_out_only_if_there_is_one(client, canned):
    server = canned({"data": [{"id": "only"}], "choices": []})

    with pytest.raises(ValueError, match=f"name a model; the server has fake, {MODEL}, slow"):
        client.infer(say("hi"))
    InferClient(base_url=server.url).infer(say("hi"))

    assert server.asked[0][1]["model"] == "only"
    assert client.get_model_list().data[1].is_multimodal


def test_no_more_requests_than_connections_are_at_the_server(canned):
    server = canned({"data": [{"id": "only"}], "choices": []}, takes_s=0.1)

    InferClient(base_url=server.url, max_connections=3).infer(say(*"abcdefghijkl"))

    assert server.max_running == 3
    assert len(server.asked) == 12
    with pytest.raises(ValueError, match="max_connections is 0"):
        InferClient(max_connections=0)


def test_progress_is_shown_for_many_and_when_it_is_asked_for(client, capfd):
    config = RequestConfig(max_tokens=1)
    client.infer(say("one"), config, model="fake")
    client.infer(say("one", "two"), config, model="fake", use_tqdm=False)
    assert capfd.readouterr().err == ""

    client.infer(say("one", "two"), config, model="fake")
    assert "2/2" in capfd.readouterr().err

    (stream,) = client.infer(say("one"), RequestConfig(max_tokens=1, stream=True), model="fake", use_tqdm=True)
    assert list(stream)
    assert client.infer([], model="fake") == []


def test_stats_count_answers_and_streams(client):
    stats = InferStats()
    client.infer(say("one two", "three"), RequestConfig(max_tokens=4), [stats], model="fake")
    (stream,) = client.infer(say("four"), RequestConfig(max_tokens=4, stream=True), [stats], model="fake")
    list(stream)

    counted = stats.compute()
    assert (counted["num_samples"], counted["num_prompt_tokens"], counted["num_generated_tokens"]) == (3, 4, 12)
    assert counted["tokens/s"] == pytest.approx(12 / counted["runtime"])
    stats.reset()
    assert stats.compute()["num_samples"] == 0


def test_only_what_was_set_is_sent(canned):
    server = canned({"choices": []})
    client = InferClient(base_url=server.url)
    request = InferRequest([{"role": "user", "content": "hi"}], chat_template_kwargs={"enable_thinking": False})

    client.infer(say("hi"), model="m")
    client.infer([request], RequestConfig(stop=["."], min_p=0.1, mm_processor_kwargs={"num_frames": 4}), model="m")

    hi = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert [asked for _, asked in server.asked] == [
        hi,
        hi
        | {"chat_template_kwargs": {"enable_thinking": False}, "stop": ["."], "min_p": 0.1}
        | {"mm_processor_kwargs": {"num_frames": 4}},
    ]


def test_key_and_server_are_told_as_they_are_wrong(locked_url):
    with pytest.raises(HTTPError, match="API key"):
        InferClient(base_url=locked_url).infer(say("hi"), model="fake")
    assert InferClient(base_url=locked_url, api_key=API_KEY).models[0] == "fake"

    with pytest.raises(ConnectionError, match="no server answers"):
        InferClient(port=free_port()).infer(say("hi", "ho"), model="fake", use_tqdm=False)
