"""Forms that are no good recordings' forms."""

import httpx2
import pytest
from openai import BadRequestError

from tests.api.conftest import MODEL


def post(gateway, **form):
    return httpx2.post(f"{gateway.url}/v1/audio/transcriptions", trust_env=False, **form)


async def test_model_that_hears_nothing_says_so(client):
    with pytest.raises(BadRequestError, match="takes no audio") as refusal:
        await client.audio.transcriptions.create(model=MODEL, file=b"RIFF")

    assert refusal.value.param == "model"


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"data": {"model": MODEL}}, "file"),
        ({"data": {"model": MODEL, "file": "words"}}, "file"),
        ({"files": {"file": b"x"}}, "model"),
        ({"files": {"file": b""}, "data": {"model": MODEL}}, "file"),
        ({"json": {"model": MODEL}}, "model"),
        ({"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "model"),
    ],
)
async def test_broken_form_is_refused_by_name(gateway, form, param):
    answer = post(gateway, **form)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("extra", [{"x" * 40 + str(i): "1" for i in range(40)}, {"prompt": "a" * 100_000}])
async def test_form_beyond_its_limits_is_refused(gateway, extra):
    answer = post(gateway, data={"model": MODEL} | extra, files={"file": b"x"})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_two_files_are_refused(gateway):
    answer = post(gateway, data={"model": MODEL}, files=[("file", b"x"), ("file", b"y")])

    assert answer.status_code == 400
