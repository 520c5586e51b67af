"""`baton chat` as a person uses it, at a terminal and through a pipe."""

import signal
import subprocess
import time

import pytest

from baton.embedded import free_port
from tests.acceptance.conftest import MODEL
from tests.baton.conftest import API_KEY
from tests.baton.deployed import BATON, without_settings
from tests.baton.typist import CTRL_C, CTRL_D, Typist
from tests.cases import INTERNVL2, read_cases

CASES = read_cases(INTERNVL2)
PHOTO, CLIP = (INTERNVL2 / "media" / name for name in ("photo.jpg", "clip.mp4"))
GREEDY = ("--model", MODEL, "--max_tokens=12", "--temperature=0")


def at_terminal(*options: str) -> Typist:
    return Typist(*BATON, "chat", *options, env=without_settings() | {"TERM": "dumb"})


def piped(text: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*BATON, "chat", *options]
    return subprocess.run(command, input=text, env=without_settings() | environment, capture_output=True, text=True)


def test_pipe_gets_the_answers_and_nothing_else(api_url):
    chat = piped("hello you\n\n/help\nand you\n", "--base_url", api_url, "--model=fake", "--max_tokens=3")

    assert (chat.stdout, chat.stderr, chat.returncode) == ("hello you hello\nand you and\n", "", 0)


def test_picture_and_clip_go_with_the_next_question(api_url, media_url):
    asked = f"/image {PHOTO}\nPlease describe the image shortly.\n/clear\n/video {media_url}/clip.mp4\n"

    chat = piped(f"{asked}What is the red panda doing?\n", "--base_url", api_url, *GREEDY)

    assert chat.stderr == ""
    assert chat.stdout == f"{CASES['image_photo'].facts['greedy_text']}\n{CASES['video'].facts['greedy_text']}\n"


def test_system_prompt_is_said_on_the_command_line_or_later(api_url):
    case = CASES["text_system"].facts
    expected = case["greedy_text"] + "\n"

    at_start = piped("What is the total price?\n", "--base-url", api_url, *GREEDY, "--system", case["system"])
    later = piped(f"/system {case['system']}\nWhat is the total price?\n", "--base-url", api_url, *GREEDY)

    assert (at_start.stdout, later.stdout) == (expected, expected)


def test_second_question_goes_with_the_first_one_and_its_answer(api_url, canned):
    frames = 'data: {"choices":[{"index":0,"delta":{"content":"yes"}}]}\n\ndata: [DONE]\n\n'
    server = canned(frames)

    chat = piped("/image http://x/y.png\none\\\nmore\ntwo\n/clear\nthree\n", "--base_url", server.url, "--model=m")

    assert chat.stdout == "yes\nyes\nyes\n"
    picture = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    first = {"role": "user", "content": [picture, {"type": "text", "text": "one\nmore"}]}
    answer = {"role": "assistant", "content": "yes"}
    assert [asked["messages"] for _, asked in server.asked] == [
        [first],
        [first, answer, {"role": "user", "content": "two"}],
        [{"role": "user", "content": "three"}],
    ]


def test_what_is_wrong_is_told_in_a_line_and_the_chat_goes_on(api_url, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PHOTO.read_bytes()[:300])
    wrong = f"/imagine\n/image\n/image no/such.png\n/image {broken}\nWhat?\n"

    chat = piped(f"{wrong}{CASES['text_only'].facts['messages'][0]['content']}\n", "--base_url", api_url, *GREEDY)

    unknown, unnamed, missing, refused = chat.stderr.splitlines()
    assert unknown == "there is no command /imagine; /help lists them"
    assert unnamed == "/image: name a file or a URL"
    assert missing == "/image: there is no file no/such.png"
    assert "picture" in refused
    assert chat.stdout == CASES["text_only"].facts["greedy_text"] + "\n"
    assert chat.returncode == 1


def test_server_that_can_not_be_talked_to_is_told(api_url, locked_url):
    port = free_port()

    missing = piped("hi\n", f"--port={port}")
    unnamed = piped("hi\n", "--base_url", api_url)
    locked = piped("hi\n", "--base_url", locked_url, "--api_key=wrong")
    no_url = piped("hi\n", "--base_url=nowhere")

    assert missing.stderr.startswith(f"baton chat: no server answers at http://127.0.0.1:{port}/v1 (")
    assert unnamed.stderr == f"baton chat: name a model with --model; the server has fake, {MODEL}, slow\n"
    assert locked.stderr.startswith("baton chat: Missing or wrong API key")
    assert no_url.stderr.startswith("baton chat: nowhere is not the URL of a server")
    assert {len(chat.stderr.splitlines()) for chat in (missing, unnamed, locked, no_url)} == {1}
    assert {chat.returncode for chat in (missing, unnamed, locked, no_url)} == {1}


def test_key_is_taken_from_the_environment(locked_url):
    chat = piped("hi\n", "--base_url", locked_url, "--model=fake", "--max_tokens=1", BATON_API_KEY=API_KEY)

    assert (chat.stdout, chat.stderr) == ("hi\n", "")


def test_reader_that_goes_away_ends_it_quietly(api_url):
    command = [*BATON, "chat", "--base_url", api_url, "--model=slow"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=without_settings(),
        text=True,
    ) as chat:
        chat.stdin.write("on and on\n")
        chat.stdin.flush()
        assert chat.stdout.read(2) == "on"
        chat.stdout.close()
        errors = chat.stderr.read()

    assert (errors, chat.returncode) == ("", 1)


def test_ctrl_c_ends_a_piped_chat(api_url):
    command = [*BATON, "chat", "--base_url", api_url, "--model=slow"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=without_settings(),
        text=True,
    ) as chat:
        chat.stdin.write("on and on\n")
        chat.stdin.flush()
        assert chat.stdout.read(2) == "on"
        chat.send_signal(signal.SIGINT)
        _, errors = chat.communicate(timeout=30)

    assert (errors, chat.returncode) == ("", 130)


def test_answer_is_typed_out_at_the_terminal(api_url):
    with at_terminal("--base_url", api_url, "--model=fake", "--max_tokens=4") as chat:
        chat.wait_for(f"fake at {api_url}; /help lists the commands, Ctrl-D leaves")
        chat.wait_for("> ")
        chat.type("hello you\n")
        assert chat.wait_for("\r\n> ") == "hello you\r\nhello you hello you"  # what was typed, and the answer
        chat.type("one\\\n")
        chat.wait_for("one\\\r\n  ")
        chat.type("two\n")
        chat.wait_for("one two one two\r\n> ")
        chat.type("/help\n")
        chat.wait_for("/image PATH|URL")
        chat.type("/system Be kind.\n/system\n/clear\n")
        chat.wait_for("system: Be kind.\r\n")
        chat.wait_for("system: Be kind.\r\n")
        chat.wait_for("a new conversation\r\n> ")
        chat.type(CTRL_D)

        assert chat.wait() == 0


def test_ctrl_c_stops_the_answer_and_its_work_at_the_server(api_url):
    """The slow model has one place, and the first answer would hold it for 100 s."""
    with at_terminal("--base_url", api_url, "--model=slow", "--max_tokens=2000") as chat:
        chat.wait_for("> ")
        chat.type("on and on\n")
        chat.wait_for("\r\non and on on")
        chat.type(CTRL_C)
        chat.wait_for("stopped\r\n> ")

        began_s = time.monotonic()
        chat.type("quick\n")
        chat.wait_for("\r\nquick quick")
        assert time.monotonic() - began_s < 20
        chat.type(CTRL_C)
        chat.wait_for("stopped\r\n> ")
        chat.type("/exit\n")

        assert chat.wait() == 0


def test_ctrl_c_between_answers_only_drops_the_line(api_url):
    with at_terminal("--base_url", api_url, "--model=fake", "--max_tokens=2") as chat:
        chat.wait_for("> ")
        chat.type("never mind\\\n")
        chat.wait_for("\\\r\n  ")
        chat.type(CTRL_C)
        chat.wait_for("> ")
        chat.type("hello you\n")
        chat.wait_for("\r\nhello you\r\n> ")
        chat.type(CTRL_D)

        assert chat.wait() == 0


def test_answer_can_not_command_the_terminal(canned):
    frames = 'data: {"choices":[{"index":0,"delta":{"content":"a\\u001b[2Jb\\u009b31m\\nc"}}]}\n\ndata: [DONE]\n\n'
    with at_terminal("--base_url", canned(frames).url, "--model=m") as chat:
        chat.wait_for("> ")
        chat.type("hi\n")

        assert chat.wait_for("\r\n> ").endswith("a[2Jb31m\r\nc")


@pytest.mark.parametrize("frames", ["", 'data: {"error":{"message":"the GPU\\nis on fire"}}\n\n'])
def test_answer_that_breaks_off_is_told_and_the_chat_goes_on(canned, frames):
    started = 'data: {"choices":[{"index":0,"delta":{"content":"well"}}]}\n\n'
    with at_terminal("--base_url", canned(started + frames).url, "--model=m") as chat:
        chat.wait_for("> ")
        chat.type("hi\n")
        chat.wait_for("well\r\n")
        chat.wait_for(
            "the GPU is on fire\r\n> " if frames else "broke off: the server closed the stream before its end"
        )
        chat.type(CTRL_D)

        assert chat.wait() == 0
