"""What outlives `baton deploy`: files, answers, and a batch that it was at."""

import json
import os
import signal
import stat
import time
from pathlib import Path

import pytest
from openai import OpenAI

from baton.embedded import EmbeddedRedis
from baton.state import DirectoryTaken, claimed, state_directory
from tests.baton.deployed import TIMEOUT_S, Deployed

NUM_LINES = 12
SLOW = ("--model_type", "fake", "--port=0", "--fake_itl_ms=100", "--max_num_seqs=1")


def start_batch(client: OpenAI, num_lines: int):
    bodies = [
        {"model": "fake", "messages": [{"role": "user", "content": f"a {n}"}], "max_tokens": 2}
        for n in range(num_lines)
    ]
    lines = [
        json.dumps({"custom_id": f"line {n}", "method": "POST", "url": "/v1/chat/completions", "body": body})
        for n, body in enumerate(bodies)
    ]
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


def wait_for(client: OpenAI, batch, num_answers: int):
    deadline_s = time.monotonic() + TIMEOUT_S
    while batch.request_counts.completed < num_answers or (num_answers == NUM_LINES and batch.status != "completed"):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def answers_of(client: OpenAI, batch) -> list[tuple[str, str]]:
    lines = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
    return [(line["custom_id"], line["response"]["body"]["choices"][0]["message"]["content"]) for line in lines]


def test_files_and_batches_outlive_a_stop_and_a_death(tmp_path: Path) -> None:
    place = f"--data_dir={tmp_path / 'kept'}"
    with Deployed(*SLOW, place) as deployed, OpenAI(base_url=f"{deployed.url}/v1", api_key="-") as client:
        done = start_batch(client, 1)
        while done.status != "completed":
            done = client.batches.retrieve(done.id)
        begun = wait_for(client, start_batch(client, NUM_LINES), 2)
        assert deployed.end(signal.SIGTERM) == 0
    with Deployed(*SLOW, place) as deployed, OpenAI(base_url=f"{deployed.url}/v1", api_key="-") as client:
        assert answers_of(client, done) == [("line 0", "a 0")]
        begun = client.batches.retrieve(begun.id)
        assert 2 <= begun.request_counts.completed < NUM_LINES
        wait_for(client, begun, begun.request_counts.completed + 2)
        deployed.end(signal.SIGKILL)
        assert deployed.left_behind() == []
    with Deployed(*SLOW, place) as deployed, OpenAI(base_url=f"{deployed.url}/v1", api_key="-") as client:
        begun = wait_for(client, client.batches.retrieve(begun.id), NUM_LINES)
        assert answers_of(client, begun) == [(f"line {n}", f"a {n}") for n in range(NUM_LINES)]
        assert client.files.retrieve(done.input_file_id).purpose == "batch"


def test_directory_is_its_owners_alone_and_one_deployments_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "state" / "kept"
    with EmbeddedRedis(place), Deployed(*SLOW, f"--data_dir={place}") as second:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place, *place.glob("*.aof"))}
        assert second.process.wait(TIMEOUT_S) == 1

    assert modes == {"kept": 0o700, "appendonly.aof": 0o600}
    assert "holds the data of a deployment that still runs" in str(second.stderr)
    with claimed(place):
        pass


def test_directory_stays_taken_as_long_as_a_server_writes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton.state.WAIT_S", 0)
    with claimed(tmp_path) as lock:
        heir = os.dup(lock)
    with pytest.raises(DirectoryTaken), claimed(tmp_path):
        pass

    os.close(heir)
    with claimed(tmp_path):
        pass


def test_default_place_is_in_the_users_state_and_apart_for_each_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert state_directory(8000) == Path("/elsewhere/baton/port-8000")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_directory(8001) == Path.home() / ".local/state/baton/port-8001"


@pytest.mark.parametrize(
    "contradiction", [("--data_dir=x", "--keep_data=false"), ("--data_dir=x", "--redis_url=redis://127.0.0.1")]
)
def test_place_for_data_that_are_kept_elsewhere_is_refused(contradiction: tuple[str, str]) -> None:
    with Deployed(*SLOW, *contradiction) as deployed:
        assert deployed.process.wait(TIMEOUT_S) == 2

    assert "--data_dir" in str(deployed.stderr)
