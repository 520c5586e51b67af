"""`baton bench`: a load of known requests on servers of known speed."""

import base64
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from io import BytesIO

import av
import pytest
import soundfile
import uvloop
from PIL import Image

from baton.bench.command import Run
from baton.bench.measurement import Measurement
from baton.bench.reply import Reply
from baton.bench.report import Report
from baton.bench.settings import BenchSettings
from baton.bench.table import histogram
from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import MODEL, Stack
from tests.baton.deployed import BATON, without_settings

TTFT_MS, ITL_MS = 120, 20
DONE = "data: [DONE]\n\n"


@pytest.fixture(scope="module")
def loaded() -> Iterator[str]:
    """A gateway whose model takes a known time for its first token and for each further one."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        stack.start_gateway()
        dials = ("--fake_ttft_ms", str(TTFT_MS), "--fake_itl_ms", str(ITL_MS))
        stack.start("worker", "--model_type", "fake", "--served_model_name", "dialled", *dials)
        stack.wait_for_models("dialled")
        yield f"{stack.url}/v1"
        stack.stop()


def bench(url: str, *arguments: str) -> Report:
    settings = BenchSettings.read([f"--base_url={url}", "--num_warmups=0", *arguments])
    return uvloop.run(Run(settings).measure())


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BATON, "bench", *arguments], env=without_settings(), capture_output=True, text=True)


def chunk(text: str, finish_reason: str | None = None, **more: object) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return f"data: {json.dumps({'choices': [choice], **more})}\n\n"


ANSWER = chunk("one") + chunk(" two", "stop") + DONE


def test_dials_of_the_model_are_what_is_measured(loaded: str) -> None:
    ran = command(
        *(f"--base_url={loaded}", "--model=dialled", "--concurrency=1", "--num_requests=3", "--num_warmups=1"),
        *("--prompt_words=5", "--answer_tokens=6", "--goodput", f"ttft:{TTFT_MS / 2}", "e2e:60000", "--json=-"),
    )

    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout)
    assert (figures["num_requests"], figures["num_answered"], figures["errors"]) == (3, 3, {})
    assert (figures["prompt_tokens"], figures["answer_tokens"], figures["tokens_counted_by"]) == (15, 18, "usage")
    ttft_ms, e2e_ms, tpot_ms = (figures[name]["mean"] for name in ("ttft_ms", "e2e_ms", "tpot_ms"))
    assert figures["ttft_ms"]["p50"] >= TTFT_MS
    assert e2e_ms >= TTFT_MS + 5 * ITL_MS
    assert tpot_ms == pytest.approx((e2e_ms - ttft_ms) / 5)
    assert 0 < figures["itl_ms"]["max"] < e2e_ms * 3
    assert figures["goodput"]["num_requests"] == 0
    assert figures["requests_per_s"] == pytest.approx(3 / figures["duration_s"])
    assert figures["tokens_per_s"] == pytest.approx(18 / figures["duration_s"])


def test_figures_are_shown_as_a_table_and_a_plot(loaded: str) -> None:
    ran = command(f"--base_url={loaded}", "--model=dialled", "--num_requests=4", "--answer_tokens=2", "--port=1")

    assert ran.returncode == 0, ran.stderr
    assert "dialled at" in ran.stdout
    assert "4 of 4 in" in ran.stdout
    assert all(name in ran.stdout for name in ("time to first token", "(ITL)", "(TPOT)", "end to end", "this client"))
    assert "█" in ran.stdout


@pytest.mark.timeout(600)  # whoever comes first starts the workers
def test_pictures_and_clips_are_drawn_and_understood(api_url: str) -> None:
    media = ("--images=1", "--image_size=64x48", "--videos=1", "--video_s=0.5", "--video_size=64x48")

    report = bench(api_url, f"--model={MODEL}", "--num_requests=2", "--answer_tokens=2", *media)

    assert (report.num_answered, report.errors) == (2, {})
    assert report.prompt_tokens > 2 * 64 + 2 * 16


def test_media_are_files_of_the_kind_and_size_asked_for(canned) -> None:
    server = canned(ANSWER)
    sizes = ("--image_size=70x50", "--image_format=png", "--audio_s=0.25", "--video_size=64x48", "--video_s=0.5")

    bench(server.url, "--model=any", "--num_requests=1", "--images=2", "--audios=1", "--videos=1", *sizes)

    first, second, recording, clip, text = server.asked[0][1]["messages"][0]["content"]
    assert len(text["text"].split()) == 64
    assert Image.open(BytesIO(payload(first["image_url"]["url"]))).size == (70, 50)
    assert first != second
    samples, rate = soundfile.read(BytesIO(base64.b64decode(recording["input_audio"]["data"])))
    assert (len(samples), rate, recording["input_audio"]["format"]) == (4000, 16_000, "wav")
    with av.open(BytesIO(payload(clip["video_url"]["url"]))) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    assert [frame.size for frame in frames] == [(64, 48)] * 4


def payload(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def test_open_loop_does_not_wait_for_answers(canned) -> None:
    server = canned(ANSWER, takes_s=2.0)

    report = bench(server.url, "--model=any", "--request_rate=50", "--arrival=constant", "--num_requests=10")

    assert report.num_answered == 10
    assert server.max_running == 10
    assert report.duration_s >= 9 / 50 + 2


def test_closed_loop_has_so_many_requests_open_and_no_more(canned) -> None:
    server = canned(ANSWER, takes_s=0.3)

    report = bench(server.url, "--model=any", "--concurrency=3", "--num_requests=12")

    assert report.num_answered == len(server.asked) == 12
    assert server.max_running == 3


def test_duration_ends_the_load(canned) -> None:
    server = canned(ANSWER, takes_s=0.05)

    report = bench(server.url, "--model=any", "--concurrency=1", "--duration=0.5", "--num_distinct=2")

    assert 1 <= report.num_answered <= 10
    assert len({asked["messages"][0]["content"] for _, asked in server.asked}) <= 2


def test_warm_up_is_not_counted(canned) -> None:
    server = canned(ANSWER)

    report = bench(server.url, "--model=any", "--num_requests=2", "--num_warmups=3")

    assert report.num_requests == 2
    assert len(server.asked) == 5


def test_turns_of_a_conversation_repeat_what_was_said_after_one_of_the_prefixes(canned) -> None:
    server = canned(ANSWER)

    bench(server.url, "--model=any", "--concurrency=1", "--num_requests=4", "--num_turns=2", "--prefix_words=7")

    first, second, third, _ = (asked["messages"] for _, asked in server.asked)
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    assert second[:2] == first
    assert second[2]["content"] == "one two"
    assert third[0] == first[0]
    assert third[1] != first[1]
    assert len(first[0]["content"].split()) == 7


def test_models_of_a_mix_are_asked_by_their_weights(canned) -> None:
    server = canned(ANSWER)

    report = bench(server.url, "--model_mix", "base=9", "poet=1", "--num_requests=60")

    assert set(report.models) == {"base", "poet"}
    assert report.models["base"].num_answered > 2 * report.models["poet"].num_answered
    assert {asked["model"] for _, asked in server.asked} == {"base", "poet"}


def test_seed_decides_what_is_asked(canned) -> None:
    server = canned(ANSWER)
    for seed in (1, 1, 2):
        bench(server.url, "--model=any", "--concurrency=1", "--num_requests=2", "--prompt_words=5-50", f"--seed={seed}")

    asked = [body for _, body in server.asked]
    assert asked[:2] == asked[2:4]
    assert asked[0] != asked[1]
    assert asked[0] != asked[4]


def test_every_request_gets_the_body_that_is_added(canned) -> None:
    server = canned(ANSWER)

    bench(server.url, "--model=any", "--num_requests=1", '--extra_body={"ignore_eos": true}', "--answer_tokens=9")

    assert server.asked[0][1]["ignore_eos"] is True
    assert server.asked[0][1]["max_tokens"] == 9
    assert server.asked[0][1]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        ({"error": {"message": "full", "type": "server_error", "code": "queue_full"}}, 429, "HTTP 429 queue_full"),
        ({"object": "error", "message": "wrong", "code": 40_001}, 400, "HTTP 400 40001"),
        ("<html>", 502, "HTTP 502"),
        (chunk("one"), 200, "stream ended without a finish_reason"),
        (DONE, 200, "answer without tokens"),
        (chunk("one") + 'data: {"error": {"code": "worker_lost"}}\n\n', 200, "error in the stream worker_lost"),
        ({"choices": 3}, 200, "answer that is not as OpenAI's"),
    ],
)
def test_errors_are_counted_by_kind(canned, answer: object, status: int, kind: str) -> None:
    server = canned(answer, status)

    report = bench(server.url, "--model=any", "--num_requests=3")

    assert report.errors == {kind: 3}
    assert (report.num_answered, report.tokens_per_s) == (0, 0)


def test_server_that_is_silent_for_too_long_is_an_error(canned) -> None:
    report = bench(canned(ANSWER, takes_s=1).url, "--model=any", "--num_requests=1", "--timeout_s=0.1")

    assert report.errors == {"no answer within 0.1 s": 1}


def test_run_without_an_answer_fails(canned) -> None:
    ran = command(f"--base_url={canned({'error': {'code': 'broken'}}, 500).url}", "--model=any", "--num_requests=2")

    assert ran.returncode == 1
    assert "2 x HTTP 500 broken" in ran.stdout


def test_nobody_there_is_one_line() -> None:
    ran = command("--port=9")

    assert ran.returncode == 1
    assert "no server answers at http://127.0.0.1:9/v1" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_ctrl_c_shows_what_was_measured(canned) -> None:
    server = canned(ANSWER, takes_s=30)
    options = (f"--base_url={server.url}", "--model=any", "--num_warmups=0", "--concurrency=2", "--json=-")
    running = subprocess.Popen([*BATON, "bench", *options], env=without_settings(), stdout=subprocess.PIPE, text=True)
    while server.num_running < 2:
        time.sleep(0.02)

    running.send_signal(signal.SIGINT)
    shown, _ = running.communicate(timeout=30)

    assert json.loads(shown)["errors"] == {"interrupted": 2}


def test_server_that_counts_no_tokens_is_measured_by_chunks(canned) -> None:
    report = bench(canned(ANSWER).url, "--model=any", "--num_requests=2")

    assert (report.answer_tokens, report.tokens_counted_by) == (4, "chunks")


def test_answer_in_one_piece_has_no_first_token(canned) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    server = canned({"choices": [{"message": {"content": "one two"}, "finish_reason": "stop"}], "usage": usage})

    report = bench(server.url, "--model=any", "--num_requests=2", "--stream=false")

    assert server.asked[0][1]["stream"] is False
    assert (report.answer_tokens, report.ttft_ms, report.itl_ms) == (14, None, None)
    assert report.e2e_ms is not None


def test_times_are_those_of_the_chunks_with_tokens() -> None:
    measurement = Measurement("any", due_s=0.0, sent_s=1.0)
    reply = Reply(measurement)
    reply.begin(200, "text/event-stream; charset=utf-8")
    reply.feed(chunk("").encode(), 2.0)
    reply.feed(chunk("a").encode()[:20], 3.0)
    reply.feed(chunk("a").encode()[20:], 4.0)
    reply.feed(b": keep-alive\n\n", 5.0)
    reply.feed((chunk("b") + chunk("c")).replace("\n", "\r\n").encode(), 6.0)
    reply.feed(chunk("", "stop", usage={"prompt_tokens": 1, "completion_tokens": 5}).encode(), 7.0)
    reply.end(8.0)

    assert measurement.is_answered
    assert (measurement.ttft_s, measurement.e2e_s, measurement.tpot_s) == (3.0, 7.0, 1.0)
    assert list(measurement.gaps_s) == [2.0, 0.0]
    assert (measurement.num_chunks, measurement.num_tokens) == (3, 5)


def test_histogram_has_every_request() -> None:
    bars = histogram([1.0, 1.1, 2.0, 50.0] * 30)

    assert sum(int(line.split()[-1]) for line in bars.splitlines()) == 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--concurrency=1", "--request_rate=1"), "two kinds of load"),
        (("--model=a", "--model_mix", "b=1"), "--model names one model"),
        (("--model_mix", "b=heavy"), "'heavy' is not a weight"),
        (("--prompt_words=9-3",), "--prompt_words: '9-3' is empty"),
        (("--answer_tokens=many",), "--answer_tokens: 'many' is neither a number"),
        (("--image_size=448",), "--image_size: '448' is not a size"),
        (("--goodput", "speed:3"), "a limit can be set on ttft, itl, tpot, e2e, e2el, not on 'speed'"),
        (("--goodput", "ttft:soon"), "'soon' is not a number of milliseconds"),
        (("--goodput", "ttft:9", "--stream=false"), "needs streamed answers"),
        (("--extra_body=[1]",), "--extra_body: not a JSON object"),
        (("--num_requests=0",), "greater than 0"),
        (("--json=/no/such/file.json",), "there is no directory /no/such"),
    ],
)
def test_wrong_option_is_told(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        BenchSettings.read(arguments)

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_options_are_variables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_GOODPUT", "ttft:500 tpot:50")
    monkeypatch.setenv("BATON_ANSWER_TOKENS", "3-4")

    settings = BenchSettings.read([])

    assert settings.goodput == {"ttft": 500, "itl": 50}
    assert str(settings.answer_tokens) == "3-4"


def test_json_keeps_its_fields(canned) -> None:
    report = bench(canned(ANSWER).url, "--model=any", "--num_requests=2", "--goodput", "ttft:1")

    assert set(report.__struct_fields__) == {
        *("version", "began", "url", "models", "load", "seed", "duration_s", "num_requests", "num_answered", "errors"),
        *("requests_per_s", "tokens_per_s", "prompt_tokens_per_s", "chunks_per_s", "prompt_tokens", "cached_tokens"),
        *("answer_tokens", "tokens_counted_by", "ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "goodput", "client"),
    }
    assert report.ttft_ms.__struct_fields__ == ("mean", "p50", "p90", "p99", "max")
    assert report.goodput.__struct_fields__ == ("limits_ms", "num_requests", "requests_per_s", "share")
    assert report.client.__struct_fields__ == ("core_share", "loop_lag_ms", "send_lateness_ms")
