"""Files by the official client: stored piece by piece, seen by their owner only, bounded, and gone when they are to."""

import asyncio
import hashlib
import json

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError

from shared import keys
from tests.api.conftest import connect, until

MAX_BYTES = 400_000
OWNERS = ("ann", "bob", "cas", "dot")


@pytest.fixture(scope="module")
def gateway(gateways, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    entries = [{"name": name, "sha256": hashlib.sha256(f"key-{name}".encode()).hexdigest()} for name in OWNERS]
    path.write_text(json.dumps(entries))
    return gateways(api_keys_file=path, max_file_bytes=MAX_BYTES, max_key_file_bytes=MAX_BYTES * 2)


@pytest.fixture
async def ann(gateway, broker):
    await forget_files(broker)
    async with connect(gateway, "key-ann") as client:
        yield client


@pytest.fixture
async def bob(gateway):
    async with connect(gateway, "key-bob") as client:
        yield client


async def forget_files(broker) -> None:
    if found := [key for key in await broker.keys("*") if key.startswith((b"file", b"pieces:", b"batch", b"open_ba"))]:
        await broker.delete(*found)


def upload(client, content: bytes, **more):
    return client.files.create(file=("in.jsonl", content), **{"purpose": "batch", **more})


async def left_in_redis(broker) -> set[bytes]:
    return {key for key in await broker.keys("*") if key.startswith((b"file:", b"pieces:"))}


async def test_file_comes_back_as_it_went(ann, broker):
    content = b"\r\n--x\0\xff".join(str(number).encode() for number in range(20_000))

    made = await upload(ann, content)
    found = await ann.files.retrieve(made.id)
    back = await ann.files.content(made.id)

    assert back.content == content
    assert (found.id, found.bytes, found.filename, found.purpose) == (made.id, len(content), "in.jsonl", "batch")
    assert found.status == "processed"
    assert found.expires_at - found.created_at == 30 * 86_400
    assert max([await broker.hstrlen(keys.pieces(made.id), str(n)) for n in range(9)]) <= 2**16


async def test_list_is_divided_into_pages(ann):
    made = [(await upload(ann, b"x")).id for _ in range(5)]

    newest_first = [file.id async for file in ann.files.list(limit=2)]
    oldest_first = [file.id async for file in ann.files.list(limit=2, order="asc", purpose="batch")]
    others = await ann.files.list(purpose="batch_output")
    page = await ann.files.list(limit=2)

    assert newest_first == made[::-1]
    assert oldest_first == made
    assert others.data == []
    assert page.has_more
    with pytest.raises(BadRequestError, match="after"):
        await ann.files.list(after="file-unknown")


async def test_deleted_file_leaves_nothing(ann, broker):
    made = await upload(ann, b"x" * 100_000)

    deleted = await ann.files.delete(made.id)

    assert (deleted.id, deleted.deleted) == (made.id, True)
    assert await left_in_redis(broker) == set()
    assert (await ann.files.list()).data == []
    with pytest.raises(NotFoundError):
        await ann.files.content(made.id)


async def test_other_key_finds_neither_file_nor_batch(ann, bob):
    made = await upload(ann, b"not json")
    batch = await ann.batches.create(
        input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={}
    )

    assert (await bob.files.list()).data == (await bob.batches.list()).data == []
    for refused in (
        lambda: bob.files.retrieve(made.id),
        lambda: bob.files.content(made.id),
        lambda: bob.files.delete(made.id),
        lambda: bob.batches.retrieve(batch.id),
        lambda: bob.batches.cancel(batch.id),
        lambda: bob.batches.create(input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"),
    ):
        with pytest.raises(NotFoundError) as refusal:
            await refused()
        assert refusal.value.code in {"file_not_found", "batch_not_found"}


async def test_file_expires_when_it_was_asked_to(ann, broker):
    made = await upload(ann, b"x", expires_after={"anchor": "created_at", "seconds": 3600})

    assert made.expires_at - made.created_at == 3600
    for key in (keys.file(made.id), keys.pieces(made.id)):
        assert 3500 < await broker.ttl(key) <= 3600

    await broker.expire(keys.file(made.id), 0)
    assert (await ann.files.list()).data == []
    assert not await broker.exists(keys.files_of("ann"))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"purpose": "assistants"}, "purpose"),
        ({"purpose": "fine-tune"}, "purpose"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after[seconds]"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after[anchor]"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"extra_body": {"purpose": ["batch", "batch"]}}, "purpose[]"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(ann, broker, more, param):
    with pytest.raises(BadRequestError) as refusal:
        await upload(ann, b"x", **more)

    assert refusal.value.param == param
    assert await left_in_redis(broker) == set()


async def test_empty_file_is_refused(ann, broker):
    with pytest.raises(BadRequestError, match="empty"):
        await upload(ann, b"")

    assert await left_in_redis(broker) == set()


async def test_too_large_file_is_refused_whether_or_not_it_says_so(ann, gateway, broker):
    with pytest.raises(APIStatusError, match="--max_file_bytes") as announced:
        await upload(ann, b"x" * (MAX_BYTES + 100_000))

    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    chunk = b"%x\r\n%b\r\n" % (MAX_BYTES + 1 + len(head), head + b"x" * (MAX_BYTES + 1))
    answer = await send(gateway, b"Transfer-Encoding: chunked", chunk, "ann")

    assert announced.value.status_code == 413
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"--max_file_bytes" in answer
    await until(lambda: is_empty(broker))


async def test_upload_that_breaks_off_leaves_nothing(ann, gateway, broker):
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"x" * 200_000
    await send(gateway, b"Content-Length: 300000", head, "ann", waits=lambda: has_pieces(broker))

    await until(lambda: is_empty(broker))
    assert (await ann.files.list()).data == []


async def test_form_that_ends_too_early_is_refused(ann, gateway, broker):
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nxyz'
    answer = await send(gateway, b"Content-Length: %d" % len(body), body, "ann")

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"breaks off" in answer
    await until(lambda: is_empty(broker))


async def test_key_has_room_for_so_many_bytes_and_another_key_its_own(ann, bob):
    large = b"x" * (MAX_BYTES - 1000)
    first = await upload(ann, large)
    await upload(ann, large)

    with pytest.raises(BadRequestError, match=r"--max_key_file_bytes.*delete files"):
        await upload(ann, large)
    await upload(bob, large)
    await ann.files.delete(first.id)
    await upload(ann, large)


async def is_empty(broker) -> bool:
    return await left_in_redis(broker) == set()


async def has_pieces(broker) -> bool:
    return any(key.startswith(b"pieces:") for key in await left_in_redis(broker))


async def send(gateway, length: bytes, body: bytes, key: str, waits=None) -> bytes:
    """Post a form by hand; with `waits`, leave once that is so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-%b\r\n" % key.encode()
    head += b"Content-Type: multipart/form-data; boundary=b\r\nConnection: close\r\n%b\r\n\r\n" % length
    writer.write(head + body)
    await writer.drain()
    if waits is None:
        answer = await reader.read()
    else:
        await until(waits)
        answer = b""
    writer.close()
    await writer.wait_closed()
    return answer
