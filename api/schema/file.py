"""Files as OpenAI names them: the form that brings one, and what is said of it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from api.schema.request import Schema
from shared.errors import InvalidRequest

MIN_EXPIRY_S = 3600
MAX_EXPIRY_S = 30 * 86_400
"""OpenAI's bounds."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value


class FileUpload(Schema):
    """What a form says beside the file; OpenAI's clients write an object's fields in brackets."""

    purpose: Literal["batch"]
    """Batches are all that files are for here."""
    anchor: Literal["created_at"] | None = Field(None, alias="expires_after[anchor]")
    seconds: Annotated[int | None, BeforeValidator(_whole)] = Field(
        None, alias="expires_after[seconds]", ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S
    )


class ExpiresAfter(Schema):
    """When a file goes away by itself, from its making on."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S)


class FileForm(Schema):
    """The form that brings a file."""

    file: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    """One request a line, as JSON."""
    purpose: Literal["batch"]
    """Batches are all that files are for here."""
    expires_after: ExpiresAfter | None = None
    """When it goes away; after `--file_ttl_s` if absent."""


class FileObject(BaseModel):
    """A file, without its bytes."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def expiry_s(asked_s: int | None, most_s: int, param: str) -> int:
    """Return after how many seconds a file goes away; raises InvalidRequest if it would live longer than it may."""
    if asked_s is not None and asked_s > most_s:
        raise InvalidRequest(
            f"{param} is {asked_s}, and this server keeps files for {most_s} s at most (--file_ttl_s).", param=param
        )
    return most_s if asked_s is None else asked_s
