"""What is to last is made without a search for garbage, and never searched; everything else still is."""

import gc
import weakref

import pytest

from shared.garbage import lasting


class Circle:
    """What only a search for garbage frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _searched_again():
    yield
    gc.unfreeze()


def test_what_the_block_makes_is_never_searched() -> None:
    with lasting():
        assert not gc.isenabled()
        kept = weakref.ref(Circle())

    gc.collect()

    assert kept() is not None


def test_everything_else_is_searched_whatever_came_of_the_block() -> None:
    with pytest.raises(ImportError), lasting():
        raise ImportError("no torch")
    freed = weakref.ref(Circle())

    gc.collect()

    assert gc.isenabled()
    assert freed() is None
