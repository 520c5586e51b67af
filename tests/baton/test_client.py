"""The scripts of ms-swift's deployment guide, with the import changed."""

import base64
import subprocess
import sys

import pytest
from PIL import Image

import baton
from baton import (
    HTTPError,
    XRequestConfig,
    get_model_list_client,
    get_model_list_client_async,
    inference_client,
    inference_client_async,
)
from baton.embedded import free_port
from tests.acceptance.conftest import MODEL
from tests.baton.conftest import API_KEY
from tests.cases import INTERNVL2, read_cases

CASES = read_cases(INTERNVL2)
PHOTO, SQUARE, CLIP = (INTERNVL2 / "media" / name for name in ("photo.jpg", "square.png", "clip.mp4"))
PHOTO_BASE64 = base64.b64encode(PHOTO.read_bytes()).decode()
QUESTION = "Please describe the image shortly."
ANSWER = CASES["image_photo"].facts["greedy_text"]
GREEDY = XRequestConfig(max_tokens=12, temperature=0)
STREAMED = XRequestConfig(max_tokens=12, temperature=0, stream=True)


def said(answer) -> str:
    return answer.choices[0].message.content


def test_model_list_says_what_each_model_is(served, api_url):
    listed = get_model_list_client(port=str(served.port))

    models = {model.id: (model.is_chat, model.is_multimodal) for model in listed.data}
    assert models == {MODEL: (True, True), "fake": (True, False), "slow": (True, False)}
    assert listed == get_model_list_client(url=f"{api_url}/") == get_model_list_client("localhost", served.port)


async def test_model_list_is_the_same_without_waiting(api_url):
    assert await get_model_list_client_async(url=api_url) == get_model_list_client(url=api_url)


@pytest.mark.parametrize(
    "address", ["{url}/photo.jpg", str(PHOTO), PHOTO_BASE64], ids=["by URL", "by path", "by base64"]
)
def test_picture_in_a_tag_is_seen(api_url, media_url, address):
    query = f"<img>{address.replace('{url}', media_url)}</img>{QUESTION}"

    assert said(inference_client(MODEL, query, request_config=GREEDY, url=api_url)) == ANSWER


def test_picture_in_the_list_is_seen_whatever_it_is_named_by(api_url, media_url):
    with Image.open(SQUARE) as picture:
        for image in (f"{media_url}/square.png", str(SQUARE), SQUARE, SQUARE.read_bytes(), picture):
            answer = inference_client(MODEL, QUESTION, images=[image], request_config=GREEDY, url=api_url)

            assert said(answer) == CASES["image_square"].facts["greedy_text"]


def test_text_is_answered_under_a_system_prompt(api_url):
    case = CASES["text_system"].facts

    answer = inference_client(
        MODEL, "What is the total price?", None, case["system"], request_config=GREEDY, url=api_url
    )

    assert said(answer) == case["greedy_text"]
    assert answer.choices[0].finish_reason == case["finish"]
    assert answer.usage.prompt_tokens == case["prompt_tokens"]
    assert answer.model == MODEL


def test_clip_is_seen(api_url, media_url):
    for videos in ([str(CLIP)], [f"{media_url}/clip.mp4"]):
        answer = inference_client(
            MODEL, "What is the red panda doing?", videos=videos, request_config=GREEDY, url=api_url
        )

        assert said(answer) == CASES["video"].facts["greedy_text"]


def test_stream_is_printed_as_the_guide_prints_it(api_url):
    chunks = list(inference_client(MODEL, QUESTION, images=[PHOTO], request_config=STREAMED, url=api_url))

    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == ANSWER
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 12
    assert {chunk.usage for chunk in chunks[:-1]} == {None}


def test_second_turn_sees_the_picture_of_the_first(api_url):
    case = CASES["multiturn_image_first"].facts
    first, answer, second = (message["content"] for message in case["messages"])
    first = first[1]["text"]

    listed = inference_client(
        MODEL, second, [(first, answer)], images=[str(PHOTO)], request_config=STREAMED, url=api_url
    )
    inline = inference_client(
        MODEL, second, [(f"<img>{PHOTO}</img>{first}", answer)], request_config=STREAMED, url=api_url
    )

    assert "".join(chunk.choices[0].delta.content for chunk in listed) == case["greedy_text"]
    assert "".join(chunk.choices[0].delta.content for chunk in inline) == case["greedy_text"]


async def test_script_that_does_not_wait_gets_the_same(api_url):
    query = f"<img>{PHOTO}</img>{QUESTION}"

    answer = await inference_client_async(MODEL, query, request_config=GREEDY, url=api_url)
    chunks = await inference_client_async(MODEL, query, request_config=STREAMED, url=api_url)

    assert said(answer) == ANSWER
    assert "".join([chunk.choices[0].delta.content async for chunk in chunks]) == ANSWER


def test_tag_names_no_file_where_the_model_takes_none(canned):
    """The server is asked first, unless the script says what the model is."""
    query = f"<img>{SQUARE}</img>"
    text_only, seeing = (
        canned({"data": [{"id": "m", "is_multimodal": sees}], "choices": []}) for sees in (False, True)
    )

    inference_client("m", query, url=text_only.url)
    inference_client("m", query, url=seeing.url)
    inference_client("m", query, url=seeing.url, is_multimodal=False)

    contents = [asked["messages"][0]["content"] for _, asked in text_only.asked + seeing.asked]
    assert contents == [query, f"<img>{base64.b64encode(SQUARE.read_bytes()).decode()}</img>", query]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "options", "status", "param", "words"),
    [
        ("gpt-9", {}, 404, "model", MODEL),
        (MODEL, {"num_beams": 2}, 400, "num_beams", "num_beams is not supported"),
        (MODEL, {"temperature": 9}, 400, "temperature", "temperature"),
    ],
    ids=["model", "beams", "temperature"],
)
def test_server_says_what_is_wrong(api_url, model, options, status, param, words, stream):
    with pytest.raises(HTTPError, match=words) as refusal:
        list(inference_client(model, "hi", request_config=XRequestConfig(stream=stream, **options), url=api_url))

    assert (refusal.value.status_code, refusal.value.param) == (status, param)


@pytest.mark.parametrize("stream", [False, True])
def test_bad_picture_is_told(api_url, tmp_path, stream):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PHOTO.read_bytes()[:300])

    with pytest.raises(HTTPError, match="picture") as refusal:
        list(inference_client(MODEL, "hi", images=[broken], request_config=XRequestConfig(stream=stream), url=api_url))

    assert (refusal.value.status_code, refusal.value.param) == (400, "images[0]")


async def test_refusal_reaches_those_that_do_not_wait(api_url):
    chunks = await inference_client_async("gpt-9", "hi", request_config=XRequestConfig(stream=True), url=api_url)
    with pytest.raises(HTTPError, match="gpt-9"):
        [chunk async for chunk in chunks]


def test_wrong_key_is_refused_and_the_right_one_is_not(locked_url):
    with pytest.raises(HTTPError, match="API key") as refusal:
        inference_client("fake", "hi", url=locked_url)

    assert (refusal.value.status_code, refusal.value.code) == (401, "invalid_api_key")
    answer = inference_client(
        "fake", "hi", url=locked_url, api_key=API_KEY, request_config=XRequestConfig(max_tokens=1)
    )
    assert said(answer) == "hi"


def test_missing_server_is_told():
    port = free_port()

    with pytest.raises(ConnectionError, match=f"no server answers at http://127.0.0.1:{port}/v1"):
        get_model_list_client(port=port)
    with pytest.raises(ValueError, match="is not the URL of a server"):
        get_model_list_client(url="127.0.0.1")


def test_silent_server_is_waited_for_as_long_as_timeout_says(canned, monkeypatch):
    server = canned({}, takes_s=1.0)
    monkeypatch.setenv("TIMEOUT", "0.1")

    with pytest.raises(TimeoutError, match=r"silent for 0\.1 s"):
        inference_client("any", "hi", is_chat=True, is_multimodal=False, url=server.url)
    monkeypatch.setenv("TIMEOUT", "0")
    with pytest.raises(HTTPError, match="not as OpenAI's"):
        inference_client("any", "hi", is_chat=True, is_multimodal=False, url=server.url)
    monkeypatch.setenv("TIMEOUT", "soon")
    with pytest.raises(ValueError, match="TIMEOUT is 'soon'"):
        get_model_list_client(url=server.url)


def test_unknown_option_is_not_swallowed():
    with pytest.raises(TypeError, match="image"):
        inference_client("any", "hi", image="photo.jpg")
    with pytest.raises(ValueError, match="roles has 1 pairs"):
        inference_client("any", "hi", [("a", "b")], roles=[["x", "y"]], is_chat=True, is_multimodal=False)


def test_only_what_was_set_is_sent(canned):
    server = canned({"choices": []})
    history, roles = [("one", "two")], [["tool", "bot"], ["user", "bot"]]
    asked = {"is_chat": True, "is_multimodal": False, "url": server.url}

    inference_client("m", "three", history, "sys", roles=roles, **asked)
    inference_client("m", "hi", request_config=XRequestConfig(temperature=0, n=1, seed=42), **asked)
    inference_client("m", "hi", tools=[{"type": "function"}], audios=["aGk="], **asked)

    turns = [("system", "sys"), ("tool", "one"), ("bot", "two"), ("user", "three")]
    hi = [{"role": "user", "content": "hi"}]
    assert server.asked == [
        (
            "/v1/chat/completions",
            {"model": "m", "messages": [{"role": role, "content": content} for role, content in turns]},
        ),
        ("/v1/chat/completions", {"model": "m", "messages": hi, "temperature": 0, "seed": 42}),
        (
            "/v1/chat/completions",
            {
                "model": "m",
                "messages": hi,
                "tools": [{"type": "function"}],
                "tool_choice": "auto",
                "audios": ["aGk="],
            },
        ),
    ]


def test_model_that_is_no_chat_model_continues_a_prompt(canned):
    """Of such servers we have none, so one that says what ms-swift's would."""
    chunk = '{{"id":"cmpl-0","model":"m","choices":[{{"index":0,"text":"{}","finish_reason":null}}]}}'
    server = canned({"model": "m", "choices": [{"index": 0, "text": "once", "finish_reason": "stop"}]})
    streaming = canned("".join(f"data: {chunk.format(word)}\n\n" for word in ("once", " more")) + "data: [DONE]\n\n")
    asked = {"is_chat_request": False, "is_multimodal": True}

    answer = inference_client("m", "Say", url=server.url, **asked)
    chunks = inference_client("m", "Say", url=streaming.url, request_config=XRequestConfig(stream=True), **asked)

    assert answer.choices[0].text == "once"
    assert "".join(chunk.choices[0].text for chunk in chunks) == "once more"
    assert server.asked == [("/v1/completions", {"model": "m", "prompt": "Say"})]
    with pytest.raises(ValueError, match="neither system nor history"):
        inference_client("m", "Say", system="sys", url=server.url, **asked)


@pytest.mark.parametrize(
    ("frames", "error", "words"),
    [
        ('data: {"error":{"message":"the GPU is on fire","code":"internal_error"}}', HTTPError, "the GPU is on fire"),
        ('data: {"object":"error","message":"flat"}', HTTPError, "flat"),
        (": keep-alive", ConnectionError, "broke off"),
        ("data: <html>", HTTPError, "<html>"),
        ('data: {"choices":3}', HTTPError, "not as OpenAI's"),
    ],
    ids=["error", "flat error", "no end", "no JSON", "another shape"],
)
def test_stream_that_goes_wrong_gives_what_came_and_says_why(canned, frames, error, words):
    """OpenAI's own first chunk has a null here and there."""
    first = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"hi","tool_calls":null}}],"usage":null}'
    server = canned(f"{first}\n\n{frames}\n\n")

    chunks = inference_client("m", "hi", request_config=STREAMED, is_chat=True, is_multimodal=False, url=server.url)

    assert next(chunks).choices[0].delta.content == "hi"
    with pytest.raises(error, match=words):
        next(chunks)


def test_body_that_nobody_can_read_is_quoted(canned):
    server = canned(["Bad Gateway"], status=502)

    with pytest.raises(HTTPError, match=r'answered 502: \["Bad Gateway"\]'):
        get_model_list_client(url=server.url)


def test_import_is_light():
    heavy = "{'torch', 'transformers', 'PIL', 'numpy', 'fastapi', 'arq', 'redis', 'uvicorn', 'rich', 'api', 'worker'}"
    used = "baton.inference_client, baton.InferClient, baton.convert_to_base64"
    source = f"import sys, baton; assert 'httpx2' not in sys.modules; {used}; print({heavy} & sys.modules.keys())"

    found = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    assert found.stdout == "set()\n"


def test_every_name_is_exported():
    assert all(getattr(baton, name) is not None for name in baton.__all__)
    assert set(baton.__all__) <= set(dir(baton))
    with pytest.raises(AttributeError, match="inference_klient"):
        baton.inference_klient  # noqa: B018 - looking is the test
