"""The whole walk's processes, as the acceptance tests start them."""

from tests.acceptance.conftest import new_stack

__all__ = ["new_stack"]
