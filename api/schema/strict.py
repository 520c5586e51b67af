"""What all bodies have in common."""

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """A body or a part of one; unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
