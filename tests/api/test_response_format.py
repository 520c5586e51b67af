"""What a response must look like is a grammar of its job."""

import pytest
from openai import BadRequestError

from tests.api.responding import answered, ask

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


async def test_answer_is_bound_by_the_format_that_is_asked_for(client, worker):
    form = {"type": "json_schema", "name": "thing", "schema": SCHEMA, "strict": True}

    job, response = await answered(client, worker, '{"a": 1}', text={"format": form})

    assert job.sampling.grammar
    assert response.text.format.model_dump(by_alias=True, exclude_none=True) == form


async def test_schema_that_cannot_be_honoured_is_named(client, worker):
    form = {"type": "json_schema", "name": "thing", "schema": {"type": "nonsense"}}

    with pytest.raises(BadRequestError) as refusal:
        await ask(client, text={"format": form})

    assert refusal.value.param.startswith("text.format.schema")
