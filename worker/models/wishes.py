"""A request's wishes for how its media are prepared, where a family has no such choice."""

from collections.abc import Collection

from shared.errors import InvalidRequest
from shared.job import ProcessorParams


def refuse_wishes(wishes: ProcessorParams, honoured: Collection[str] = ()) -> None:
    """Raise InvalidRequest, naming the wish, if there is one that the family doesn't honour."""
    for name in wishes.__struct_fields__:
        if name not in honoured and getattr(wishes, name) is not None:
            raise InvalidRequest(f"the model has no {name} to choose: leave it out", param=f"mm_processor_kwargs.{name}")
