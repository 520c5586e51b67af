import asyncio
import base64
import contextlib
import gzip
import json
from ipaddress import ip_address

import pytest

from api.fetch import MediaFetcher
from api.media import MediaSource
from api.network import CheckedNetwork, is_public
from api.settings import ApiSettings
from api.store import MediaStore
from shared import keys
from shared.errors import InvalidMedia
from shared.job import MediaKind

PICTURE = bytes(range(256)) * 40


def source(address: str, param: str = "images[0]") -> MediaSource:
    return MediaSource(MediaKind.IMAGE, address, param)


def fetcher(admits=lambda _: True, **options) -> MediaFetcher:
    return MediaFetcher(ApiSettings(**options), CheckedNetwork(admits))


async def fetch(*addresses: str, admits=lambda _: True, **options) -> list[bytes]:
    async with fetcher(admits, **options) as opened:
        contents = await opened.fetch([source(a, f"images[{i}]") for i, a in enumerate(addresses)])
    return [contents[address] for address in addresses]


@contextlib.asynccontextmanager
async def web(answer, host: str = "127.0.0.1"):
    """A web server that gives `answer(path)`: status, headers and body, or never ends if the body is None."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(head)
        status, headers, body = answer(head.split()[1])
        lines = [f"HTTP/1.1 {status} X", *headers, "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + (body or b"x"))
        await writer.drain()
        if body is None:
            await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}", seen


async def test_every_spelling_of_an_address_gives_its_bytes():
    encoded = base64.b64encode(PICTURE).decode()
    async with web(lambda _: (200, [], PICTURE)) as (url, _):
        contents = await fetch(
            f"{url}/a.png", f"data:image/png;base64,{encoded}", encoded, base64.encodebytes(PICTURE).decode()
        )

    assert contents == [PICTURE] * 4


@pytest.mark.parametrize(
    "address",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://a/b",
        "cat.png",
        "",
        "C:\\cat.png",
        "data:image/png;base64,?",
        "data:,",
        " " * 200_000 + "!",
        "data:image/png;base64,AAA",
        "A" * 33,
        "https://",
        "http://[::1",
        "http://a b/",
        "http://\u2028/",
    ],
)
async def test_address_that_is_no_medium_is_refused(address):
    with pytest.raises(InvalidMedia) as caught:
        await fetch(address)

    assert caught.value.param == "images[0]"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "127.1",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "10.0.0.1",
        "[fe80::1]",
        "[fc00::1]",
        "0177.0.0.1",
        "0x7f000001",
        "0x7F.0x0.0x0.0x1",
        "017700000001",
        "127.0.1",
        "127.0.0.1.",
        "LOCALHOST",
        "localhost.",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[fe80::1%25lo]",
        "[2001:0:7f00:1::]",
        "[64:ff9b::a9fe:a9fe]",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "172.16.0.1",
        "192.0.0.192",
        "100.100.100.200",
        "198.18.0.1",
        "240.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "\u2460\u2461\u2466.0.0.1",
    ],
)
async def test_private_host_is_refused_however_it_is_spelled(host):
    async with web(lambda _: (200, [], PICTURE)) as (url, seen):
        port = url.rpartition(":")[2]
        with pytest.raises(InvalidMedia, match=r"not on a public address|valid http\(s\) URL|can't be reached"):
            await fetch(f"http://{host}:{port}/", admits=is_public)

    assert not seen


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("64:ff9b::5db8:d822", True),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("100.64.0.1", False),
        ("192.168.1.1", False),
        ("ff0e::1", False),
        ("::127.0.0.1", False),
        ("2001:0:7f00:1::", False),
        ("fec0::1", False),
        ("2001:db8::1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::1", False),
        ("2002:a9fe:a9fe::", False),
        ("::ffff:93.184.216.34", True),
        ("fd00:ec2::254", False),
        ("::", False),
        ("0.0.0.0", False),
        ("192.0.0.192", False),
        ("198.18.0.1", False),
    ],
)
def test_public_means_one_host_on_the_internet(address, expected):
    assert is_public(ip_address(address)) is expected


async def test_redirect_to_a_refused_host_is_refused():
    async with (
        web(lambda _: (200, [], PICTURE), "127.0.0.2") as (inner, seen),
        web(lambda _: (302, [f"Location: {inner}/secret"], b"")) as (outer, _),
    ):
        with pytest.raises(InvalidMedia, match="not on a public address"):
            await fetch(outer, admits=lambda address: address != ip_address("127.0.0.2"))
        assert not seen
        assert await fetch(outer) == [PICTURE]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((404, [], b"secret page"), "answered 404"),
        ((200, ["Content-Length: 10000"], b"short"), "broke the connection"),
        ((200, [], b"x" * 5000), "larger than 4096 bytes"),
        ((200, ["Content-Length: 3"], None), "within 0.3 s"),
        ((200, ["Content-Length: 0"], b""), "empty"),
        ((302, ["Location: /again"], b""), "more than 5 times"),
        ((302, ["Location: file:///etc/passwd"], b""), "redirected to something else"),
    ],
)
async def test_host_that_misbehaves_is_told_apart(answer, says):
    async with web(lambda _: answer) as (url, _):
        with pytest.raises(InvalidMedia, match=says) as caught:
            await fetch(url, max_media_bytes=4096, media_timeout_s=0.3)

    assert caught.value.param == "images[0]"
    assert "secret" not in caught.value.message
    assert "127.0.0.1" not in caught.value.message


async def test_name_that_changes_its_mind_is_connected_to_where_it_was_checked(monkeypatch):
    """DNS says a public address to the check and a private one to a second question."""
    loop, asked = asyncio.get_running_loop(), []
    resolve = loop.getaddrinfo

    async def rebinding(host, port, **named):
        if host != "rebinding.example":
            return await resolve(host, port, **named)
        asked.append(host)
        return await resolve("127.0.0.3" if len(asked) == 1 else "127.0.0.2", port, **named)

    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", lambda _, *a, **k: rebinding(*a, **k))
    async with web(lambda _: (200, [], b"secret"), "127.0.0.2") as (inner, seen):
        port = inner.rpartition(":")[2]
        with pytest.raises(InvalidMedia, match="can't be reached"):
            await fetch(f"http://rebinding.example:{port}/", admits=lambda a: a != ip_address("127.0.0.2"))

    assert asked == ["rebinding.example"]
    assert not seen


async def test_name_with_one_forbidden_address_among_others_is_refused(monkeypatch):
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def both(host, port, **named):
        return [*await resolve("93.184.216.34", port, **named), *await resolve("127.0.0.1", port, **named)]

    monkeypatch.setattr(loop.__class__, "getaddrinfo", lambda _, *a, **k: both(*a, **k))

    with pytest.raises(InvalidMedia, match="not on a public address"):
        await fetch("http://two-faced.example/", admits=is_public)


@pytest.mark.parametrize(
    ("hosts", "address", "is_allowed"),
    [
        ("localhost", "http://localhost", True),
        ("LocalHost.", "http://LOCALHOST", True),
        ("*.example.com localhost", "http://localhost", True),
        ("example.com", "http://localhost", False),
        ("127.0.0.1", "http://localhost", False),
        ("host", "http://localhost", False),
        ("*.localhost", "http://localhost", False),
        ("localhost", "http://127.0.0.1", False),
        ("localhost", "http://localhost.evil.example", False),
        ("localhost", "http://localhost@127.0.0.1", False),
        ("localhost", "http://127.0.0.1\\@localhost", False),
        ("localhost", "http://127.0.0.1#@localhost", False),
    ],
)
async def test_only_listed_hosts_are_asked(hosts, address, is_allowed):
    async with web(lambda _: (200, [], PICTURE)) as (url, seen):
        port = url.rpartition(":")[2]
        settings = ApiSettings(allowed_media_hosts=hosts)
        async with MediaFetcher(settings, CheckedNetwork(lambda _: True, settings.allowed_media_hosts)) as it:
            asking = it.fetch([source(f"{address}:{port}/")])
            if is_allowed:
                assert list((await asking).values()) == [PICTURE]
            else:
                with pytest.raises(InvalidMedia):
                    await asking

    assert bool(seen) is is_allowed


async def test_redirect_leaves_the_listed_hosts_for_no_other():
    async with (
        web(lambda _: (200, [], PICTURE)) as (inner, seen),
        web(lambda _: (302, [f"Location: {inner}/secret"], b"")) as (outer, _),
    ):
        network = CheckedNetwork(lambda _: True, ["localhost"])
        async with MediaFetcher(ApiSettings(), network) as it:
            with pytest.raises(InvalidMedia, match="does not fetch from"):
                await it.fetch([source(outer.replace("127.0.0.1", "localhost"))])

    assert not seen


async def test_credentials_in_a_redirect_are_refused():
    async with (
        web(lambda _: (200, [], PICTURE)) as (inner, seen),
        web(lambda _: (302, [f"Location: {inner.replace('//', '//me:secret@')}"], b"")) as (outer, _),
    ):
        with pytest.raises(InvalidMedia, match="user name or password"):
            await fetch(outer)

    assert not seen


async def test_unreachable_host_is_told():
    async with web(lambda _: (200, [], b"")) as (url, _):
        pass
    for address in (url, "http://no-such-host.invalid/"):
        with pytest.raises(InvalidMedia, match="can't be reached"):
            await fetch(address)


async def test_credentials_in_a_url_are_refused():
    with pytest.raises(InvalidMedia, match="user name or password"):
        await fetch("http://me:secret@127.0.0.1/")


async def test_bytes_of_all_media_count_together():
    inline = "data:;base64," + base64.b64encode(b"y" * 900).decode()
    async with web(lambda _: (200, [], b"x" * 900)) as (url, _):
        assert len(await fetch(url, inline, max_media_bytes=1800)) == 2
        with pytest.raises(InvalidMedia, match="larger than 1799 bytes"):
            await fetch(url, inline, max_media_bytes=1799)


async def test_same_address_is_fetched_once_and_nothing_is_unpacked():
    bomb = gzip.compress(bytes(10**6))
    async with (
        web(lambda _: (200, ["Content-Encoding: gzip", "Set-Cookie: a=b"], bomb)) as (url, seen),
        fetcher() as it,
    ):
        contents = await it.fetch([source(url), source(url)])
        await it.fetch([source(url + "/again")])

    assert contents == {url: bomb}
    assert len(seen) == 2
    assert "cookie" not in seen[1].lower()


async def test_same_bytes_lie_in_redis_once(redis):
    store = MediaStore(redis)

    first = await store.put(b"a picture of its own", 10)
    assert await redis.get(keys.media(first)) == b"a picture of its own"
    await redis.set(keys.media(first), b"not sent again", keepttl=True)
    second = await store.put(b"a picture of its own", 100)

    assert first == second
    assert await redis.get(keys.media(first)) == b"not sent again"
    assert 90 < await redis.ttl(keys.media(first)) <= 100
    assert await redis.dbsize() == 1


async def test_media_reach_the_job_by_their_hash(broker, client, worker):
    inline = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    async with web(lambda _: (200, [], PICTURE)) as (url, _):
        parts = [{"type": "image_url", "image_url": {"url": a}} for a in (url, inline)]
        asked = client.chat.completions.create(model="parrot", messages=[{"role": "user", "content": parts}])
        answer = asyncio.ensure_future(asked)
        job = await worker.answer("ok")
        await answer

    here, there = job.messages[0].parts
    assert here.sha256 == there.sha256
    assert (here.kind, here.param) == (MediaKind.IMAGE, "messages[0].content[0].image_url")
    assert await broker.get(keys.media(here.sha256)) == PICTURE
    assert len(json.dumps([str(part) for part in job.messages[0].parts])) < 1000
