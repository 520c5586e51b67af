"""Answers that have to match something: a tiny model with random weights writes JSON only because it must."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from itertools import islice, product
from string import ascii_lowercase

import jsonschema_rs
import pytest
from openai import BadRequestError, LengthFinishReasonError
from pydantic import BaseModel, Field

from tests.acceptance.conftest import ADAPTERS, MODEL
from tests.cases import INTERNVL2
from worker.models.tokenizer import read_vocabulary

QUESTION = [{"role": "user", "content": "Tell me a story."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "kind": {"enum": ["été", "冬天", 'a "b"\n', None, 3]},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
        "place": {"$ref": "#/$defs/place"},
    },
    "required": ["name", "kind", "sizes", "place"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"x": {"type": "boolean"}, "when": {"type": "string", "format": "date"}},
            "required": ["x", "when"],
            "additionalProperties": False,
        }
    },
}
SEVENTEEN = {"type": "array", "items": {"enum": [*range(17)]}, "minItems": 3, "maxItems": 3}
MAX_S = 5.0
"""What refusing may take on a machine with much to do; each of the schemas below would take far longer by itself."""

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers


def ask(client, **options):
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 300, "temperature": 0} | options
    return client.chat.completions.create(**body)


def choice(client, **options):
    return ask(client, **options).choices[0]


def schema_format(schema, name="it"):
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def streamed(client, **options):
    """Return text and finish reason, as they add up."""
    parts = [part for chunk in ask(client, stream=True, **options) for part in chunk.choices]
    return "".join(part.delta.content or "" for part in parts), parts[-1].finish_reason


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 1.9, "seed": 4}, {"temperature": 1.0, "top_p": 0.5, "seed": 2}]
)
def test_answer_matches_its_schema_streamed_as_plain(client, sampling):
    asked = {"response_format": schema_format(SCHEMA), **sampling}

    plain = choice(client, **asked)

    assert plain.finish_reason == "stop"
    assert jsonschema_rs.is_valid(SCHEMA, json.loads(plain.message.content))
    assert not jsonschema_rs.is_valid(SCHEMA, json.loads(plain.message.content) | {"more": 1})
    assert streamed(client, **asked) == (plain.message.content, plain.finish_reason)


@pytest.mark.parametrize("model", ADAPTERS)
def test_adapters_answer_matches_as_well(client, model):
    answer = choice(client, model=model, response_format=schema_format(SCHEMA))

    assert jsonschema_rs.is_valid(SCHEMA, json.loads(answer.message.content))


class Season(Enum):
    SPRING = "spring"
    AUTUMN = "autumn"


class Year(BaseModel):
    seasons: list[Season] = Field(max_length=3)
    days: int = Field(ge=1, le=366)
    leap: bool | None


def test_official_client_parses_a_model_of_its_user(client):
    answer = client.chat.completions.parse(
        model=MODEL, messages=QUESTION, max_tokens=300, response_format=Year, temperature=1.5, seed=3
    )

    assert isinstance(answer.choices[0].message.parsed, Year)


def test_answer_that_was_cut_off_says_so(client):
    with pytest.raises(LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=QUESTION, max_tokens=5, response_format=Year)


def test_json_object_is_an_object_and_a_bias_allows_nothing_else(client):
    vocabulary = read_vocabulary(INTERNVL2 / "checkpoint")
    (end,) = (i for i in range(vocabulary.control_ids["<|im_end|>"]) if vocabulary.token_bytes(i) == b"}")
    (wrong,) = vocabulary.encode("书")[-1:]
    bias = {str(end): 30, str(wrong): 30}

    answer = choice(client, response_format={"type": "json_object"}, logit_bias=bias)

    assert answer.finish_reason == "stop"
    assert isinstance(json.loads(answer.message.content), dict)
    assert choice(client, logit_bias=bias).message.content != answer.message.content


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[a-f]{4}-[0-9]{2,5}(é|ß)"}, "[a-f]{4}-[0-9]{2,5}(é|ß)"),
        ({"structured_outputs": {"regex": "^ {0,3}x{3} ?$"}}, " {0,3}xxx ?"),
        ({"guided_choice": ["yes/no", "大概 😀 "]}, "yes/no|大概 😀 "),
        ({"structured_outputs": {"choice": ["one"]}}, "one"),
        ({"guided_json": {"type": "boolean"}}, "true|false"),
        ({"guided_json": '{"const": [1, "é"]}'}, r'\[\s*1\s*,\s*"é"\s*\]'),
        ({"structured_outputs": {"json": {"type": "null"}}}, "null"),
        ({"guided_grammar": 'start: "a" b "c"\nb: /[0-9]{3}/ | "(" b ")"'}, r"a\(*[0-9]{3}\)*c"),
        ({"structured_outputs": {"grammar": 'root ::= "say " word\nword ::= [a-z] [a-z]'}}, "say [a-z]{2}"),
    ],
)
def test_answer_matches_what_vllms_fields_say(client, fields, pattern):
    answer = choice(client, extra_body=fields, temperature=1.5, seed=1, max_tokens=100)

    assert answer.finish_reason == "stop"
    assert re.fullmatch(pattern, answer.message.content)


def test_every_choice_matches_and_is_told_token_by_token(client):
    asked = {"response_format": schema_format(SCHEMA), "logprobs": True, "n": 3, "temperature": 1.8, "seed": 6}
    answer = ask(client, **asked)

    assert len({choice.message.content for choice in answer.choices}) == 3
    for one in answer.choices:
        assert jsonschema_rs.is_valid(SCHEMA, json.loads(one.message.content))
        spelled = b"".join(bytes(token.bytes) for token in one.logprobs.content)
        assert spelled.decode() == one.message.content


def test_stop_string_cuts_before_the_end_and_penalties_bend_nothing(client):
    asked = {"response_format": schema_format(SEVENTEEN), "extra_body": {"repetition_penalty": 3.0}}
    whole = choice(client, **asked, frequency_penalty=2)

    assert jsonschema_rs.is_valid(SEVENTEEN, json.loads(whole.message.content))
    cut = choice(client, **asked, frequency_penalty=2, stop=[","])
    assert cut.message.content == whole.message.content.partition(",")[0]


def test_rows_beside_it_answer_as_if_alone(client):
    plain = {"max_tokens": 60, "seed": 5}
    alone = [choice(client, **plain, temperature=heat).message.content for heat in (0, 1.4)]

    with ThreadPoolExecutor(6) as pool:
        constrained = [pool.submit(choice, client, response_format=schema_format(SCHEMA)) for _ in range(4)]
        beside = [pool.submit(choice, client, **plain, temperature=heat) for heat in (0, 1.4)]

    assert [answer.result().message.content for answer in beside] == alone
    assert len({answer.result().message.content for answer in constrained}) == 1


def test_format_that_asks_for_text_asks_for_nothing(client):
    plain = choice(client, max_tokens=20).message.content

    assert choice(client, max_tokens=20, response_format={"type": "text"}).message.content == plain


def nested(depth):
    return {} if depth == 0 else {"type": "array", "items": nested(depth - 1)}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "strin"}, "Invalid type: strin"),
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, "'uniqueItems' at /.*/a"),
        ({"type": "string", "maxLenght": 3}, "keyword 'maxLenght'"),
        ({"not": {"type": "string"}}, "keyword 'not'"),
        ({"type": "object", "properties": {"a=": {"maxLenght": 3}}}, "keyword 'maxLenght' at /properties/a="),
        ({"type": "string", "x-guidance": {"lenient": True}}, "x-guidance"),
        ({"type": "string", "format": "color"}, "Unknown format: color"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"$ref": "http://127.0.0.1/x"}, "does not fetch"),
        ({"$ref": "#/$defs/a"}, "does not exist"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "no text matches"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]}, "write anyOf"),
        ({"enum": []}, "Unsatisfiable"),
        (nested(40), "too deep; at most 32 levels"),
        ({"enum": [*range(5000)]}, "at most 4096"),
        ({"const": "x" * 70_000}, "at most 65536"),
        ({"type": "object", "properties": {f"p{i}": {} for i in range(300)}}, "has 300 properties"),
        ({"type": "integer", "multipleOf": 99991}, "multipleOf 99991"),
        ({"allOf": [{"type": "integer", "multipleOf": n} for n in (7, 997, 991)]}, "little in common"),
        (
            {"allOf": [{"anyOf": [{"properties": {f"k{i}{j}": {"const": j}}} for j in range(4)]} for i in range(8)]},
            "large",
        ),
    ],
)
def test_schema_that_cannot_be_honoured_is_refused_in_time(client, schema, says):
    began_s = time.monotonic()
    with pytest.raises(BadRequestError, match=says) as refusal:
        ask(client, response_format=schema_format(schema))

    assert refusal.value.param == "response_format.json_schema.schema"
    assert len(refusal.value.body["message"]) < 600
    assert time.monotonic() - began_s < MAX_S


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"guided_regex": "(?=a)"}, "guided_regex", "look-around"),
        ({"guided_regex": "a" * 5000}, "guided_regex", "5000 characters; at most 4096"),
        ({"guided_regex": "(" * 2000 + ")" * 2000}, "guided_regex", "can't be followed"),
        ({"guided_choice": []}, "guided_choice", "at least 1"),
        ({"guided_choice": [""]}, "guided_choice", "is empty"),
        ({"guided_choice": ["a" * 40_000]}, "guided_choice", "40000 characters; at most 32768"),
        ({"guided_regex": "a\\"}, "guided_regex", "lone backslash"),
        ({"guided_grammar": "start: %json {}"}, "guided_grammar", "%json"),
        ({"guided_choice": [f"{i}" for i in range(2000)]}, "guided_choice", "2000 choices; at most 1024"),
        ({"guided_json": "{"}, "guided_json", "not valid JSON"),
        ({"guided_json": "[1]"}, "guided_json", "object"),
        ({"guided_grammar": "start: nothing"}, "guided_grammar", "unknown name"),
        ({"guided_grammar": "root ::= " + "(" * 3000}, "guided_grammar", "can't be followed"),
        ({"guided_grammar": "start: a\na[temperature=2]: /b/"}, "guided_grammar", "temperature"),
        ({"structured_outputs": {"regexp": "a"}}, "structured_outputs.regexp", "Unknown field"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "guided_regex and guided_choice"),
        ({"guided_regex": "a", "min_tokens": 3}, "min_tokens", "beside guided_regex"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos", "beside guided_regex"),
    ],
)
def test_other_wish_that_cannot_be_honoured_is_refused_by_name(client, fields, param, says):
    with pytest.raises(BadRequestError, match=says) as refusal:
        ask(client, extra_body=fields)

    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("response_format", "param"),
    [
        ({"type": "xml"}, "response_format"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "it"}}, "response_format.json_schema.schema"),
        (schema_format({}, name="two words"), "response_format.json_schema.name"),
    ],
)
def test_format_that_is_none_is_refused_by_name(client, response_format, param):
    with pytest.raises(BadRequestError) as refusal:
        ask(client, response_format=response_format)

    assert refusal.value.param == param


def letters(number):
    """Return so many strings that begin alike in large groups."""
    return ["".join(three) for three in islice(product(ascii_lowercase, repeat=3), number)]


WIDENING = "\n".join(
    [
        'start: "x" "x" many',
        "many: " + " | ".join(f'each "{word}"' for word in letters(600)),
        "each: " + " | ".join(f'"{word}" "q"' for word in letters(600)),
    ]
)
"""Two letters are cheap; what may come behind them took 235 ms to find out, and as much again once a letter came."""


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "(.{1,400}){400}"},
        {"guided_grammar": 'start: s\ns: s s | /[a-z]/ | " "'},
        {"guided_grammar": WIDENING},
    ],
    ids=["exploding", "ambiguous", "widening"],
)
def test_what_is_dear_to_follow_costs_its_own_request_only(client, fields):
    plain = choice(client, max_tokens=60).message.content

    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(choice, client, max_tokens=60)
        with pytest.raises(BadRequestError, match=r"too complex .* 50 ms of work: simplify"):
            choice(client, extra_body=fields, temperature=2.0, seed=1)

    assert beside.result().message.content == plain
