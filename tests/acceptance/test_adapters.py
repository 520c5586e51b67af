"""Adapters come and go while two workers serve."""

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from openai import NotFoundError
from redis import Redis

from baton.embedded import EmbeddedRedis
from shared import keys, wire
from tests.acceptance.conftest import MODEL, Stack
from tests.acceptance.test_golden import request_of
from tests.cases import INTERNVL2, read_cases

CASES = read_cases(INTERNVL2)
KEY = "secret"
LONG = {"temperature": 2.0, "seed": 7, "max_tokens": 400}


@pytest.fixture(scope="module")
def pair():
    """A gateway with a key and two workers, of which only the first was told of an adapter."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        stack.start_gateway("--api_key", KEY)
        stack.start_internvl2(MODEL, "--ckpt_dir", str(INTERNVL2 / "adapter"))
        stack.wait_for_models(MODEL, "default-lora", api_key=KEY)
        stack.start_internvl2(MODEL)
        wait_for_workers(stack, 2)
        yield stack
        stack.stop()


@pytest.fixture(scope="module")
def client(pair):
    return pair.client(api_key=KEY)


def workers_of(stack):
    with Redis.from_url(stack.redis_url) as redis:
        names = redis.zrangebyscore(keys.WORKERS, time.time(), "+inf")
        return [wire.decode_worker(redis.get(keys.worker(name.decode()))) for name in names]


def wait_for_workers(stack, number, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while sum(worker.state == "ready" for worker in workers_of(stack)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def call(stack, verb, key=KEY, **body):
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.post(f"{stack.url}/v1/{verb}_lora_adapter", json=body, headers=headers, timeout=60)


def refusal(answer):
    return answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["message"]


def attempts_of(stack, job_id):
    with Redis.from_url(stack.redis_url) as redis:
        return {wire.decode_event(fields[b"e"]).attempt for _, fields in redis.xrange(keys.log(job_id))}


@pytest.fixture
def second(pair):
    """Another adapter, loaded at run time."""
    answer = call(pair, "load", lora_name="second", lora_path=str(INTERNVL2 / "adapter_all"))
    assert answer.status_code == 200
    yield answer.json()
    call(pair, "unload", lora_name="second")


def ask(client, model, **options):
    messages = [{"role": "user", "content": "Tell me a long story."}]
    return client.chat.completions.create(**{"model": model, "messages": messages, "temperature": 0} | options)


def test_adapter_of_the_command_line_is_listed_after_its_base_and_every_worker_has_it(pair, client):
    listed = client.models.list().data

    assert [(model.id, getattr(model, "parent", None)) for model in listed] == [(MODEL, None), ("default-lora", MODEL)]
    assert [worker.adapters for worker in workers_of(pair)] == [("default-lora",)] * 2


def test_default_lora_and_its_base_give_their_own_answers(client, media_url):
    tuned, base = CASES["adapter_image"], CASES["image_photo"]

    answer = client.chat.completions.create(**request_of(tuned, media_url) | {"model": "default-lora"})

    assert answer.choices[0].message.content == tuned.facts["greedy_text"]
    assert answer.model == "default-lora"
    plain = client.chat.completions.create(**request_of(base, media_url))
    assert plain.choices[0].message.content == base.facts["greedy_text"]
    assert plain.model == MODEL


@pytest.mark.usefixtures("second")
def test_adapter_loaded_at_run_time_answers_on_every_worker(pair, client, media_url):
    case = CASES["adapter_all_image"]
    assert all("second" in worker.adapters for worker in workers_of(pair))

    with ThreadPoolExecutor(8) as pool:
        asked = request_of(case, media_url) | {"model": "second"}
        answers = list(pool.map(lambda _: client.chat.completions.create(**asked), range(24)))

    assert {answer.choices[0].message.content for answer in answers} == {case.facts["greedy_text"]}
    assert {answer.model for answer in answers} == {"second"}


def test_load_answers_with_the_models_card(second):
    assert (second["id"], second["parent"], second["object"]) == ("second", MODEL, "model")


@pytest.mark.usefixtures("second")
def test_unload_ends_new_requests_and_lets_running_ones_end(pair, client):
    expected = ask(client, "second", **LONG).choices[0].message.content
    stream = ask(client, "second", stream=True, **LONG)
    begun = [next(stream), next(stream)]

    gone = call(pair, "unload", lora_name="second")

    assert gone.json() == {"id": "second", "object": "model", "deleted": True}
    assert [worker.adapters for worker in workers_of(pair)] == [("default-lora",)] * 2
    assert sum(worker.running for worker in workers_of(pair)) == 1
    with pytest.raises(NotFoundError, match="'second' does not exist"):
        ask(client, "second")
    chunks = [*begun, *stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    assert {chunk.model for chunk in chunks} == {"second"}


@pytest.mark.usefixtures("second")
def test_loading_again_is_fine_from_the_same_directory_only(pair):
    same = call(pair, "load", lora_name="second", lora_path=str(INTERNVL2 / "adapter_all"))
    other = call(pair, "load", lora_name="second", lora_path=str(INTERNVL2 / "adapter"))

    assert same.status_code == 200
    status, param, message = refusal(other)
    assert (status, param) == (400, "lora_name")
    assert "unload it first" in message


def test_directory_that_cannot_be_loaded_is_a_bad_request_and_leaves_no_trace(pair, client, tmp_path):
    before = [worker.adapters for worker in workers_of(pair)]
    adapter = shutil.copytree(INTERNVL2 / "adapter", tmp_path / "tuned")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))

    for path, words in ((tmp_path, "not a LoRA directory"), (adapter, "use_dora=True")):
        status, param, message = refusal(call(pair, "load", lora_name="bad", lora_path=str(path)))
        assert (status, param) == (400, "lora_path")
        assert words in message
        assert all(worker.id in message for worker in workers_of(pair))
    (adapter / "adapter_config.json").write_text(json.dumps(config))

    assert [worker.adapters for worker in workers_of(pair)] == before
    assert call(pair, "load", lora_name="bad", lora_path=str(adapter)).status_code == 200  # mended
    assert call(pair, "unload", lora_name="bad").status_code == 200


@pytest.mark.parametrize(
    ("verb", "body", "status", "param", "words"),
    [
        ("load", {"lora_name": "x", "lora_path": "output/x"}, 400, "lora_path", "absolute path"),
        ("load", {"lora_name": "a b", "lora_path": "/x"}, 400, "lora_name", "letters, digits"),
        ("load", {"lora_name": "x"}, 400, "lora_path", "Missing field"),
        ("load", {"lora_name": "x", "lora_path": "/x", "rank": 8}, 400, "rank", "Unknown field"),
        ("load", {"lora_name": MODEL, "lora_path": "/x"}, 400, "lora_name", "taken"),
        ("load", {"lora_name": "x", "lora_path": "/x", "base_model": "nobody"}, 404, "model", "does not exist"),
        ("load", {"lora_name": "x", "lora_path": "/x", "base_model": "default-lora"}, 400, "base_model", "itself"),
        ("unload", {"lora_name": "nobody"}, 404, "lora_name", "'nobody' is loaded"),
        ("unload", {"lora_name": MODEL}, 404, "lora_name", "is loaded"),
    ],
)
def test_bad_calls_are_told_what_is_wrong(pair, verb, body, status, param, words):
    answer = refusal(call(pair, verb, **body))

    assert answer[:2] == (status, param)
    assert words in answer[2]


def test_without_the_key_nothing_is_loaded(pair):
    assert call(pair, "load", key="wrong", lora_name="x", lora_path="/x").status_code == 401
    assert call(pair, "unload", key="wrong", lora_name="default-lora").status_code == 401


def test_system_text_of_the_training_is_used_unless_the_client_has_one(pair, client, tmp_path):
    tuned = shutil.copytree(INTERNVL2 / "adapter", tmp_path / "tuned")
    arguments = json.loads((tuned / "sft_args.json").read_text("utf-8"))
    (tuned / "sft_args.json").write_text(json.dumps(arguments | {"system": "You are a pirate."}))
    assert call(pair, "load", lora_name="pirate", lora_path=str(tuned)).status_code == 200
    told = [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Tell me a long story."}]

    own = ask(client, "pirate", max_tokens=12)
    spoken = ask(client, "default-lora", messages=told, max_tokens=12)
    call(pair, "unload", lora_name="pirate")

    assert own.usage.prompt_tokens == spoken.usage.prompt_tokens  # not what each found cached, at whichever worker
    assert own.choices[0].message.content == spoken.choices[0].message.content
    assert own.usage.prompt_tokens != ask(client, "default-lora", max_tokens=12).usage.prompt_tokens


def test_stream_of_an_adapter_survives_the_death_of_its_worker(pair, client):
    """The last test: one worker is gone afterwards."""
    expected = ask(client, "default-lora", **LONG).choices[0].message.content
    stream = ask(client, "default-lora", stream=True, **LONG)
    chunks = [next(stream), next(stream)]

    with Redis.from_url(pair.redis_url) as redis:
        holder = redis.hget(keys.lease(chunks[0].id), "holder").decode()
    os.kill(int(holder.rpartition("/")[0].split("-")[-2]), signal.SIGKILL)
    chunks += stream

    assert attempts_of(pair, chunks[0].id) == {1, 2}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
