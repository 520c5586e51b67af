"""What responses leave in Redis is bounded, in time and in bytes."""

import time

import pytest

from api.keyring import ANYBODY
from api.responses.archive import ResponseArchive
from api.store import MediaStore
from shared import keys
from shared.job import ChatJob, JobId, MediaKind, MediaPart, Message, Role, SamplingParams
from shared.kept import KeptResponse

PICTURE = b"p" * 4000
TIMEOUT_S = 20
GRACE_S = TIMEOUT_S + 60


def archive(redis, max_bytes: int) -> ResponseArchive:
    return ResponseArchive(redis, 1000, max_bytes, TIMEOUT_S)


@pytest.fixture
async def sha256(redis) -> str:
    return await MediaStore(redis).put(PICTURE, 30)


async def keep(archive: ResponseArchive, name: str, sha256: str | None = None) -> JobId:
    id_, now_s = JobId(f"resp_{name}"), time.time()
    parts = () if sha256 is None else (MediaPart(MediaKind.IMAGE, sha256, ""),)
    kept = KeptResponse(id=id_, key_name="", heading=b"h" * 1000, messages=(Message(Role.USER, parts),), places=())
    times = {"created_s": now_s, "deadline_s": now_s + TIMEOUT_S}
    await archive.keep(kept, ChatJob(id=id_, model="m", gateway="g", messages=(), sampling=SamplingParams(), **times))
    return id_


async def test_response_and_its_media_live_for_their_time_from_the_deadline(redis, sha256):
    id_ = await keep(archive(redis, 10**6), "a", sha256)

    for key in (keys.response(id_), keys.media(sha256)):
        assert 1000 < await redis.ttl(key) <= 1000 + TIMEOUT_S


async def test_a_later_request_does_not_shorten_the_life_of_kept_media(redis, sha256):
    await keep(archive(redis, 10**6), "a", sha256)

    await MediaStore(redis).put(PICTURE, 30)

    assert await redis.ttl(keys.media(sha256)) > 1000


async def test_one_picture_in_many_responses_is_weighed_once(redis, sha256):
    kept = archive(redis, 10**6)
    await keep(kept, "a", sha256)
    once = int(await redis.hget(keys.KEPT_BYTES, ""))
    await keep(kept, "b", sha256)

    assert once > len(PICTURE)
    assert int(await redis.hget(keys.KEPT_BYTES, "")) - once < len(PICTURE)


async def test_oldest_response_goes_first_where_there_is_no_room_for_all(redis):
    kept = archive(redis, 5000)
    ids = [await keep(kept, name) for name in "abcdefg"]

    lives = [await redis.ttl(keys.response(id_)) for id_ in ids]
    gone = [life <= GRACE_S for life in lives]
    assert 0 < sum(gone) < len(ids)
    assert gone == sorted(gone, reverse=True)
    assert int(await redis.hget(keys.KEPT_BYTES, "")) <= 5000
    assert await redis.zcard(keys.KEPT) == len(ids) - sum(gone)


async def test_picture_of_a_new_response_stays_when_an_old_one_goes(redis, sha256):
    kept = archive(redis, 9000)
    first = await keep(kept, "a", sha256)
    for name in "bcde":
        last = await keep(kept, name, sha256)

    assert await redis.ttl(keys.response(first)) <= GRACE_S
    assert await redis.ttl(keys.media(sha256)) > GRACE_S
    assert await kept.find(last, ANYBODY) is not None


async def test_log_of_an_ended_response_counts_until_it_is_deleted(redis):
    kept = archive(redis, 10**6)
    id_ = await keep(kept, "a")
    before = int(await redis.hget(keys.KEPT_BYTES, ""))
    await redis.xadd(keys.log(id_), {"e": b"x" * 5000})
    await redis.expire(keys.log(id_), 24 * 3600)

    await kept.weigh_log(id_)

    assert int(await redis.hget(keys.KEPT_BYTES, "")) - before > 5000
    assert await redis.zscore(keys.KEPT, keys.log(id_)) <= time.time() + kept.log_ttl_s + 1
    await kept.delete(id_)
    assert int(await redis.hget(keys.KEPT_BYTES, "")) == 0
    assert await redis.zcard(keys.KEPT) == 0


async def test_what_has_expired_is_counted_no_longer(redis):
    brief = ResponseArchive(redis, -TIMEOUT_S + 1, 10**6, TIMEOUT_S)
    await keep(brief, "a")
    score = await redis.zscore(keys.KEPT, keys.response(JobId("resp_a")))
    await redis.zadd(keys.KEPT, {keys.response(JobId("resp_a")): score - 60})

    second = await keep(brief, "b")

    assert await redis.zrange(keys.KEPT, 0, -1) == [keys.response(second).encode()]
    assert list(await redis.hkeys(keys.KEPT_BYTES)) == [b"", keys.response(second).encode()]
