import socket

import pytest

from baton.embedded import free_port
from baton.port import PortTaken, choose_port


def test_taken_default_gives_way_to_the_next_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert port < choose_port("127.0.0.1", port, is_named=False) <= port + 100


def test_named_port_is_taken_or_used() -> None:
    port = free_port()
    assert choose_port("127.0.0.1", port, is_named=True) == port

    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(PortTaken, match=rf"^port {port} is taken by .+ \(process \d+\)"),
    ):
        choose_port("127.0.0.1", port, is_named=True)


def test_port_0_is_any_free_port() -> None:
    assert choose_port("127.0.0.1", 0, is_named=True) > 0


def test_address_of_another_machine_can_not_be_listened_on() -> None:
    with pytest.raises(PortTaken, match=r"can't listen on 192\.0\.2\.1"):
        choose_port("192.0.2.1", 8000, is_named=False)
    with pytest.raises(PortTaken, match="can't listen on no-such-host"):
        choose_port("no-such-host.invalid", 8000, is_named=False)
