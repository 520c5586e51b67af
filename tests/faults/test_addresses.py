"""Redis behind TLS and a password, and behind Sentinels: losing it costs nobody anything; no log has the password."""

import asyncio
import random
import ssl
from pathlib import Path

import pytest
from redis.asyncio import Redis

from baton.embedded import free_port
from shared.settings import Settings
from tests.faults.proxy import Proxy
from tests.faults.server import FragileRedis, Sentinel
from tests.faults.stage import Stage

CERTIFICATE = Path(__file__).parent / "localhost.pem"
"""Its own authority, for 127.0.0.1; the key lies beside it."""
PASSWORD = "correct/horse@battery:staple"
QUOTED = "correct%2Fhorse%40battery%3Astaple"


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

            async with Stage.open(url, log=written, log_level="debug") as stage:
                await stage.play(fault, random.Random(0))

    told = log.read_text()
    assert "Redis is away" in told
    assert [word for word in (PASSWORD, QUOTED, "horse") if word in told] == []
    figures.add("a Redis behind TLS is killed", 1, stage)


@pytest.mark.timeout(300)
async def test_sentinels_replace_a_dead_master_and_no_client_notices(tmp_path, figures):
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    with (
        FragileRedis(folders[0]) as master,
        FragileRedis(folders[1], "--replicaof", "127.0.0.1", str(master.port)) as replica,
        Sentinel(folders[2], master.port) as sentinel,
    ):
        await in_step(replica)

        async def fault(stage, rng):
            master.kill(loses_data=False)

        nobody = f"127.0.0.1:{free_port()}"
        async with Stage.open(f"redis+sentinel://{nobody},127.0.0.1:{sentinel.port}/main/0") as stage:
            await stage.play(fault, random.Random(0))
            async with Redis.from_url(replica.url) as successor:
                assert (await successor.info("replication"))["role"] == "master"

    figures.add("a master behind Sentinels is killed", 1, stage)


async def in_step(replica: FragileRedis) -> None:
    """Wait until the replica has what its master has."""
    async with asyncio.timeout(30), Redis.from_url(replica.url) as redis:
        while (await redis.info("replication")).get("master_link_status") != "up":
            await asyncio.sleep(0.05)


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
