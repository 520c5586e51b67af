"""How a gateway leaves: first it says so, later it stops listening, and in the end it cuts off what is still open."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import ServerStopping

Cut = Callable[[ServerStopping], object]


class Departure:
    """Created with the application; told by the server that runs it."""

    def __init__(self) -> None:
        self.is_announced = False
        """Whether nobody should send new requests here."""
        self._hearers: list[Callable[[], object]] = []
        self._error: ServerStopping | None = None
        self._cuts: set[Cut] = set()

    def announce(self) -> None:
        """Be no longer ready."""
        self.is_announced = True
        for hear in self._hearers:
            hear()

    def tell(self, hear: Callable[[], object]) -> None:
        """Have `hear` called once it is announced."""
        self._hearers.append(hear)

    def cut(self) -> None:
        """End everything that is open with an error, and all that still comes."""
        self._error = ServerStopping("This server is stopping; please try again.")
        for cut in list(self._cuts):
            cut(self._error)

    @property
    def is_cut(self) -> bool:
        """Whether open answers are cut off."""
        return self._error is not None

    def check(self) -> None:
        """Raise ServerStopping once open answers are cut off."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def watched(self, cut: Cut) -> Iterator[None]:
        """Have `cut` called should it come to that; raises ServerStopping if it has."""
        self.check()
        self._cuts.add(cut)
        try:
            yield
        finally:
            self._cuts.discard(cut)
