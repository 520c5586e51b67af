"""Where a JSON object ends that comes in pieces, valid or not."""


class GrowingObject:
    """Counts brackets outside of strings; created where the object begins."""

    def __init__(self, halt: str = "") -> None:
        """`halt` is a character that can't stand outside of a string: reading waits before one."""
        self._halt = halt
        self._depth = 0
        self._is_string = False
        self._is_escaped = False
        self.is_complete = False

    def take(self, text: str) -> int:
        """Read on; return how many characters belong to the object."""
        for position, character in enumerate(text):
            if self.is_complete or (character == self._halt and not self._is_string):
                return position
            self._step(character)
        return len(text)

    def _step(self, character: str) -> None:
        if self._is_string:
            self._is_string = self._is_escaped or character != '"'
            self._is_escaped = character == "\\" and not self._is_escaped
        elif character == '"':
            self._is_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.is_complete = self._depth <= 0
