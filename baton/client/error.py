"""What the Python client raises when a server refuses; like the errors of `requests`, it is an OSError."""


class HTTPError(OSError):
    """The server refused, or its answer ended in an error; the message is the server's own.

    Beside it, ConnectionError says that no server answers or that it broke off, and TimeoutError that it was silent.
    """

    def __init__(
        self, message: str, *, status_code: int | None = None, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.param = param
        self.code = code
