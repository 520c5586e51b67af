"""Who waits for whose media to be gone."""

import asyncio

import pytest

from shared.errors import InvalidMedia
from worker.engine.runner import MediaRoom
from worker.room import Room


async def entered(turn):
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return turn.done()


async def test_requests_wait_until_one_as_large_as_any_may_be_fits():
    room = Room(MediaRoom(total_bytes=100, most_bytes=60))
    first = await room.enter()
    second, third = (asyncio.create_task(room.enter()) for _ in range(2))
    assert not await entered(second)

    first.settle(40)  # it is smaller than it might have been

    assert await entered(second)
    assert not await entered(third)
    second.result().settle(60)
    first.leave()
    assert not await entered(third)
    second.result().leave()
    assert await entered(third)


async def test_alone_any_request_gets_in():
    place = await Room(MediaRoom(total_bytes=1, most_bytes=60)).enter()

    place.settle(60)


async def test_one_that_leaves_the_line_takes_nothing_along():
    room = Room(MediaRoom(total_bytes=60, most_bytes=60))
    place = await room.enter()
    leaves, stays = (asyncio.create_task(room.enter()) for _ in range(2))
    assert not await entered(stays)

    leaves.cancel()
    place.leave()

    assert await entered(stays)
    stays.result().leave()
    assert await entered(asyncio.create_task(room.enter()))


async def test_media_larger_than_what_was_planned_for_are_refused_by_name():
    place = await Room(MediaRoom(total_bytes=100, most_bytes=60)).enter()

    with pytest.raises(InvalidMedia, match=r"take 61 bytes .* planned for 60 in one request"):
        place.settle(61)


async def test_where_nobody_found_out_nobody_waits():
    room = Room(None)

    assert len([await room.enter() for _ in range(100)]) == 100
