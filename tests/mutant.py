"""A mechanism that can be switched off, to see whether its test notices."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mechanism, what it does in which file, what is there instead, and the test that is to notice."""

    name: str
    file: str
    before: str
    after: str
    test: str
