"""Who may prepare media now: what all requests' media take in memory stays within what the start has found free.

They stay there until their requests end, so whoever finds too little waits before it decodes anything.
"""

import asyncio
from collections import deque

from shared.errors import InvalidMedia
from worker.engine.runner import MediaRoom

ENDLESS = MediaRoom(total_bytes=2**62, most_bytes=2**40)
"""Where nobody found out what there is."""


class Room:
    """Created with the worker; the next in line enters when a request as large as one may be fits beside the others.

    With nobody inside anybody enters, so nobody waits for ever.
    """

    def __init__(self, limits: MediaRoom | None) -> None:
        self.limits = limits or ENDLESS
        self._places: set[Place] = set()
        self._line: deque[asyncio.Future[Place]] = deque()

    async def enter(self) -> "Place":
        """Wait for a place, first come, first served."""
        turn: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        self.admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                turn.result().leave()
            self.admit()
            raise

    def admit(self) -> None:
        """Let in whoever fits."""
        while self._line and (self._line[0].cancelled() or self._has_place):
            turn = self._line.popleft()
            if not turn.cancelled():
                place = Place(self)
                self._places.add(place)
                turn.set_result(place)

    def close(self, place: "Place") -> None:
        """Take a place back."""
        self._places.discard(place)
        self.admit()

    @property
    def _has_place(self) -> bool:
        taken = sum(place.num_bytes for place in self._places)
        return not self._places or taken + self.limits.most_bytes <= self.limits.total_bytes


class Place:
    """One request's; as large as one may be until it is known how large it is."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.num_bytes = room.limits.most_bytes

    def settle(self, num_bytes: int) -> None:
        """Say what the media really take; raises InvalidMedia if it is more than those of one request may."""
        if num_bytes > self._room.limits.most_bytes:
            raise InvalidMedia(
                f"the request's media take {num_bytes} bytes as the model sees them, and this server is planned for "
                f"{self._room.limits.most_bytes} in one request; send fewer or smaller ones",
                param="messages",
            )
        self.num_bytes = num_bytes
        self._room.admit()

    def leave(self) -> None:
        """Give it back; it may have been given back already."""
        self._room.close(self)
