"""The gateway and the stand-in worker of the gateway's own tests."""

from tests.api.conftest import broker, gateways

__all__ = ["broker", "gateways"]
