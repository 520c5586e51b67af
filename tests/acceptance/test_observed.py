"""What an operator sees of the whole walk: metrics, traces and logs of real processes, and never a prompt."""

import base64
import json
import os
import subprocess
import sys
import time

import httpx2
import pytest
from openai import APIStatusError
from prometheus_client.parser import text_string_to_metric_families

from baton.embedded import EmbeddedRedis, free_port
from tests.acceptance.collector import Collector
from tests.acceptance.conftest import MODEL, Stack
from tests.cases import INTERNVL2

pytestmark = pytest.mark.timeout(300)  # a loaded machine takes long to import transformers
CANARY = "kanarienvogel"
TRACE, CLIENTS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class ObservedStack(Stack):
    """Its processes say all they can, as JSON, into files."""

    def __init__(self, redis_url: str, directory, collector: Collector) -> None:
        super().__init__(redis_url)
        self.directory = directory
        self._environment = os.environ | {
            "BATON_REDIS_URL": redis_url,
            "BATON_LOG_LEVEL": "debug",
            "BATON_LOG_FORMAT": "json",
            "OMP_NUM_THREADS": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def start(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        with open(self.directory / f"{module}.log", "wb") as log:
            command = [sys.executable, "-m", module, *options]
            process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def lines(self, module: str) -> list[dict]:
        return [json.loads(line) for line in (self.directory / f"{module}.log").read_text().splitlines()]


@pytest.fixture(scope="module")
def collector():
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(tmp_path_factory, collector, metrics_port):
    with EmbeddedRedis() as server:
        stack = ObservedStack(server.url, tmp_path_factory.mktemp("logs"), collector)
        stack.start_gateway()
        stack.start_internvl2(MODEL, "--metrics_port", str(metrics_port))
        stack.wait_for_models(MODEL)
        yield stack
        stack.stop()


@pytest.fixture(scope="module")
def client(stack):
    return stack.client()


def ask(client, text: str, *parts: dict, **options):
    content = [*parts, {"type": "text", "text": text}]
    options = {"model": MODEL, "max_tokens": 5} | options
    return client.chat.completions.create(messages=[{"role": "user", "content": content}], **options)


def test_one_trace_goes_from_the_client_through_the_queue_to_the_engine(client, collector):
    headers = {"traceparent": f"00-{TRACE}-{CLIENTS_SPAN}-01"}
    answer = ask(client, "hi", extra_headers=headers, metadata={"chat": "7"}, user="somebody")

    found = collector.wait_for(TRACE, 9)

    services = {name: service for name, (service, _) in found.items()}
    gateways, workers = ("POST request", "enqueue"), ("chat", "queue wait", "prepare", "prefill", "decode", "publish")
    assert services == dict.fromkeys(gateways, "baton-api") | dict.fromkeys((*workers, "engine step"), "baton-worker")
    spans = {name: span for name, (_, span) in found.items()}
    assert spans["POST request"].parent_span_id.hex() == CLIENTS_SPAN
    assert spans["enqueue"].parent_span_id == spans["chat"].parent_span_id == spans["POST request"].span_id
    assert {spans[name].parent_span_id for name in (*workers[1:], "engine step")} == {spans["chat"].span_id}
    in_order = [(spans[name].start_time_unix_nano, spans[name].end_time_unix_nano) for name in workers[1:]]
    assert [end for _, end in in_order] == sorted(end for _, end in in_order)
    assert all(start <= end for start, end in in_order)
    assert attributes(spans["chat"])["baton.job.id"] == answer.id
    assert attributes(spans["POST request"]).items() >= {"baton.metadata.chat": "7", "enduser.id": "somebody"}.items()
    assert attributes(spans["decode"])["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens


def test_trace_of_a_long_answer_shows_few_of_its_steps_and_counts_them_all(client, collector):
    trace = "3" * 32
    options = {"max_tokens": 40, "extra_body": {"ignore_eos": True}}
    answer = ask(client, "Count.", extra_headers={"traceparent": f"00-{trace}-{CLIENTS_SPAN}-01"}, **options)

    spans = {name: span for name, (_, span) in collector.wait_for(trace, 9).items()}

    steps = [span for _, span in collector.spans if (span.trace_id.hex(), span.name) == (trace, "engine step")]
    assert [attributes(step)["baton.engine.step"] for step in steps] == [1, 2, 4, 8, 16, 32]
    assert all(attributes(step)["baton.engine.batch_size"] == 1 for step in steps)
    prefill, decode = attributes(spans["prefill"]), attributes(spans["decode"])
    num_read = prefill["gen_ai.usage.input_tokens"] - prefill["gen_ai.usage.cache_read.input_tokens"]
    assert prefill["gen_ai.usage.input_tokens"] == answer.usage.prompt_tokens
    assert prefill["baton.engine.num_chunks"] == 1
    assert attributes(steps[0])["baton.engine.num_read_tokens"] >= num_read - 1  # the last one is decoded
    assert decode["baton.engine.num_steps"] == decode["gen_ai.usage.output_tokens"] == 40
    assert spans["prefill"].start_time_unix_nano <= steps[0].start_time_unix_nano
    assert [step.end_time_unix_nano for step in steps] == sorted(step.end_time_unix_nano for step in steps)


def test_trace_that_its_client_does_not_sample_is_not_sampled(client, collector):
    unsampled = "1" * 32
    ask(client, "hi", extra_headers={"traceparent": f"00-{unsampled}-{CLIENTS_SPAN}-00"})
    ask(client, "hi", extra_headers={"traceparent": f"00-{'2' * 32}-{CLIENTS_SPAN}-01"})
    collector.wait_for("2" * 32, 9)

    assert unsampled not in {span.trace_id.hex() for _, span in collector.spans}


def test_workers_metrics_count_jobs_and_tokens_in_the_fields_names(client, metrics_port):
    before = scrape(metrics_port)
    usage = ask(client, "count me").usage
    after = until_counted(metrics_port, before)

    def added(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert added("baton:prompt_tokens_total") == usage.prompt_tokens
    assert added("baton:generation_tokens_total") == usage.completion_tokens
    for phase in ("queue", "prepare", "prefill", "decode"):
        assert added(f"baton:request_{phase}_time_seconds_count") == 1, phase
    assert after["baton:num_requests_running"] == 0
    assert after["baton:leases_lost_total"] == 0


def test_logs_name_the_job_in_every_process_and_never_hold_a_prompt(stack, client, media_url):
    jpeg = base64.b64encode((INTERNVL2 / "media" / "photo.jpg").read_bytes()).decode()
    corrupt = base64.b64encode(CANARY.encode() * 10).decode()
    by_url = {"type": "image_url", "image_url": {"url": f"{media_url}/photo.jpg?{CANARY}"}}
    inline = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"}}
    answers = [ask(client, f"{CANARY} {n}", picture) for n, picture in enumerate((by_url, inline))]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, CANARY, stream=True, stop=[CANARY]))
    for offence in (
        {"extra_body": {"images": [f"data:image/jpeg;base64,{corrupt}"]}},
        {"extra_body": {CANARY: CANARY}},
        {"max_tokens": 4000},
        {"extra_body": {"seed": CANARY}},
        {"extra_body": {"images": [f"http://127.0.0.1:9/{CANARY}"]}},
        {"model": CANARY},
    ):
        with pytest.raises(APIStatusError):
            ask(client, CANARY, **offence)
    for path in ("v1/chat/completions", f"v1/{CANARY}", f"{CANARY}?{CANARY}={CANARY}"):
        httpx2.post(f"{stack.url}/{path}", content=f'{{"{CANARY}": '.encode())

    for module in ("api", "worker"):
        written = (stack.directory / f"{module}.log").read_text()
        assert CANARY not in written
        assert jpeg[:40] not in written
        assert corrupt[:40] not in written
        assert "chat.completion" not in written  # no frame and no body of an answer
        lines = stack.lines(module)
        assert {answer.id for answer in answers} <= {line.get("job") for line in lines}
        assert len({line["process"] for line in lines}) == 1
    (access,) = [line for line in stack.lines("api") if line.get("job") == answers[0].id and "status" in line]
    assert (access["method"], access["route"], access["status"]) == ("POST", "/v1/chat/completions", 200)


def test_tracing_that_is_off_loads_nothing():
    program = (
        "import sys, api.app, worker.main; from shared.tracing import open_tracing\n"
        "with open_tracing('x', 'y') as tracing: print(type(tracing).__name__)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}

    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert shown.stdout == "NoTracing\n[]\n"


def attributes(span) -> dict[str, object]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def scrape(port: int) -> dict[str, float]:
    page = httpx2.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
    return {s.name: s.value for family in text_string_to_metric_families(page) for s in family.samples}


def until_counted(port: int, before: dict[str, float]) -> dict[str, float]:
    """The metrics once one more job has ended: its client may hear of it a little earlier."""
    deadline = time.monotonic() + 20
    while (now := scrape(port)).get("baton:jobs_total", 0.0) <= before.get("baton:jobs_total", 0.0):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return now
