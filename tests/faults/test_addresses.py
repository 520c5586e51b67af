"""Redis behind TLS, passwords and Sentinels: losing it costs nobody anything, and no log has a password."""

import asyncio
import random
import re
import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from baton.embedded import free_port
from shared.settings import Settings
from tests.faults.mix import Question
from tests.faults.proxy import Proxy
from tests.faults.server import FragileRedis, Sentinel
from tests.faults.stage import Stage

CERTIFICATE = Path(__file__).parent / "localhost.pem"
"""Its own authority, for 127.0.0.1; the key lies beside it."""
PASSWORD = "okapi/horse@battery:staple"
QUOTED = quote(PASSWORD, safe="")
SENTINEL_PASSWORD = "zebra-quagga"
REFUSED = ("connecting again: invalid username-password", "waiting for Redis: invalid username-password")
"""What a gateway and a worker say of a password that Redis doesn't take."""
DEBUG = ("--log_level=debug",)


@pytest.mark.timeout(300)
async def test_redis_behind_tls_and_a_password_may_die_and_no_log_tells_the_password(tmp_path, figures):
    certificate = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.load_cert_chain(CERTIFICATE)
    log = tmp_path / "log"
    with FragileRedis(tmp_path, "--requirepass", PASSWORD) as server, log.open("wb") as written:
        async with Proxy(server.port, certificate) as proxy:
            url = f"rediss://:{QUOTED}@127.0.0.1:{proxy.port}/0?ssl_ca_certs={CERTIFICATE}"

            async def fault(stage, rng):
                proxy.cut_soon(rng, max_bytes=3000)
                server.kill(loses_data=False)
                await asyncio.sleep(1.0)
                server.start()

            async with Stage.open(url, log=written, gateway_options=DEBUG, log_level="debug") as stage:
                await stage.play(fault, random.Random(0))

    assert "Redis is away" in log.read_text()
    assert told_of(PASSWORD, log) == []
    figures.add("a Redis behind TLS is killed", 1, stage)


@pytest.mark.timeout(300)
async def test_sentinels_replace_a_dead_master_and_no_client_notices(tmp_path, figures):
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    guarded = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    log = tmp_path / "log"
    with (
        FragileRedis(folders[0], *guarded) as master,
        FragileRedis(folders[1], *guarded, "--replicaof", "127.0.0.1", str(master.port)) as replica,
        Sentinel(folders[2], master.port, PASSWORD, SENTINEL_PASSWORD) as sentinel,
        log.open("wb") as written,
    ):
        await in_step(replica)

        async def fault(stage, rng):
            master.kill(loses_data=False)

        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}"  # nobody listens at the first one
        url = f"redis+sentinel://:{QUOTED}@{hosts}/main/0?sentinel_password={SENTINEL_PASSWORD}"
        async with Stage.open(url, log=written, gateway_options=DEBUG, log_level="debug") as stage:
            await stage.play(fault, random.Random(0))
            async with Redis.from_url(replica.url, password=PASSWORD) as successor:
                assert (await successor.info("replication"))["role"] == "master"

    assert told_of(PASSWORD, log) + told_of(SENTINEL_PASSWORD, log) == []
    figures.add("a master behind Sentinels is killed", 1, stage)


async def in_step(replica: FragileRedis) -> None:
    """Wait until the replica has what its master has."""
    async with asyncio.timeout(30), Redis.from_url(replica.url, password=PASSWORD) as redis:
        while (await redis.info("replication")).get("master_link_status") != "up":
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_processes_wait_for_a_redis_that_does_not_take_their_password_and_never_tell_it(tmp_path):
    question = Question("äöü", is_streamed=True, max_tokens=20)
    log = tmp_path / "log"
    with FragileRedis(tmp_path, "--requirepass", PASSWORD) as server, log.open("wb") as written:
        url = f"redis://:{QUOTED}@127.0.0.1:{server.port}/0"
        options = {"gateway_options": DEBUG, "log_level": "debug", "num_gateways": 0, "num_workers": 0}
        async with (
            Stage.open(url, log=written, **options) as stage,
            Redis.from_url(server.url, password=PASSWORD) as redis,
        ):
            await redis.config_set("requirepass", "not yet")
            stage.start_gateway()
            stage.start_worker()
            async with asyncio.timeout(60):
                while not all(words in log.read_text() for words in REFUSED):
                    await asyncio.sleep(0.05)
            await redis.config_set("requirepass", PASSWORD)
            await stage.settle()
            assert await stage.ask(question) == question.expected

    assert told_of(PASSWORD, log) == []


def told_of(password: str, log: Path) -> list[str]:
    """Return the lines with the password in them, or with what it looks like in a URL, or with a part of it."""
    words = {password, quote(password, safe=""), *re.split(r"\W", password)}
    return [line for line in log.read_text().splitlines() if any(word in line for word in words)]


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa/ss@127.0.0.1:6379/0",
        "amqp://:pa-ss@127.0.0.1",
        "redis+sentinel://:pa-ss@127.0.0.1",
        "redis://:pa-ss@127.0.0.1?colour=red",
        "rediss+sentinel://:pa-ss@127.0.0.1/main?colour=red",
    ],
)
def test_address_that_is_none_is_refused_without_repeating_it(url, capsys):
    with pytest.raises(SystemExit):
        Settings.read(["--redis_url", url])

    told = capsys.readouterr().err
    assert "this is no address of a Redis" in told
    assert [word for word in ("pa/ss", "pa-ss", "'pa'") if word in told] == []
