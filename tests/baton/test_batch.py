"""`baton batch` as a person uses it: a file in, a file out, and a batch that is left and gone on with."""

import json
import signal
import subprocess

from tests.baton.deployed import BATON, without_settings
from tests.baton.typist import CTRL_C, Typist


def write_lines(path, model: str, num_lines: int, **fields) -> None:
    lines = [
        {
            "custom_id": f"line {n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": f"a {n}"}], "max_tokens": 2} | fields,
        }
        for n in range(num_lines)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))


def batch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*BATON, "batch", *map(str, arguments)]
    return subprocess.run(command, env=without_settings(), capture_output=True, text=True)


def texts(path) -> list[str]:
    answers = [json.loads(line)["response"]["body"] for line in path.read_text().splitlines()]
    return [answer["choices"][0]["message"]["content"] for answer in answers]


def test_file_is_answered_in_its_order(api_url, tmp_path):
    write_lines(tmp_path / "in.jsonl", "fake", 5)

    done = batch(tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--base_url", api_url)

    assert done.returncode == 0
    assert "completed: 5 answers, 0 without one\n" in done.stderr
    assert texts(tmp_path / "out.jsonl") == [f"a {n}" for n in range(5)]
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_lines_that_are_refused_are_told_and_kept_apart(api_url, tmp_path):
    write_lines(tmp_path / "in.jsonl", "fake", 2, temperature=9)

    done = batch(tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--base_url", api_url)

    assert done.returncode == 1
    assert "completed: 0 answers, 2 without one, in" in done.stderr
    assert len((tmp_path / "out.errors.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "out.jsonl").exists()


def test_file_that_is_no_batch_is_told_line_by_line(api_url, tmp_path):
    (tmp_path / "in.jsonl").write_text("[]")

    done = batch(tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--base_url", api_url)

    assert done.returncode == 1
    assert "line 1: " in done.stderr


def test_batch_that_was_left_is_gone_on_with(api_url, tmp_path):
    write_lines(tmp_path / "in.jsonl", "slow", 4, max_tokens=20)
    command = [str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--base_url", api_url]
    with Typist(*BATON, "batch", *command, env=without_settings() | {"TERM": "dumb"}) as typist:
        typist.wait_for("--batch_id ")
        batch_id = typist.wait_for(" ")
        typist.type(CTRL_C)
        assert typist.wait() in {128 + signal.SIGINT, -signal.SIGINT}

    done = batch("--batch_id", batch_id, "-o", tmp_path / "out.jsonl", "--base_url", api_url)

    assert done.returncode == 0
    assert len(texts(tmp_path / "out.jsonl")) == 4
