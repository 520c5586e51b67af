"""Chat templates in processes of their own: whatever one asks for costs the request that brought it there, alone."""

import threading

import psutil
import pytest

from shared.errors import InvalidRequest
from shared.job import Message, ProcessorParams, Role, TextPart
from worker.prepare import template
from worker.prepare.children import Children, Trade
from worker.prepare.template import Conversation, read_names, write

TURNS = [{"role": "user", "content": "hi"}]
HOSTILE = {
    "multiplied": "{{ 'x' * times }}",
    "multiplied where it is compiled": "{{ 'x' * 10 ** 10 }}",
    "a list": "{{ [0] * times }}",
    "doubled": "{% set ns = namespace(x='x' * 10 ** 6) %}{% for i in range(40) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "centered": "{{ 'x' | center(times) }}",
    "justified": "{{ 'x'.ljust(times) }}",
    "formatted": "{{ '{:>10000000000}'.format(1) }}",
    "formatted by percent": "{{ '%010000000000d' % 1 }}",
    "replaced": "{{ ('x' * 10 ** 6).replace('x', 'x' * 10 ** 6) }}",
    "as JSON": "{{ [[0]] | tojson(indent=times) }}",
}
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def processes():
    """Two of one's own, which may take a little memory and some seconds."""
    trade = Trade("worker.prepare.template_child", template.Said | template.Refused, 2, 2**28, 4.0)
    opened = Children(trade)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "_children", lambda: opened)
        yield opened
    opened.close()


def refused(source, **variables):
    with pytest.raises(InvalidRequest) as raised:
        write(Conversation(source, TURNS, variables), 10**6)
    assert raised.value.param == "messages"
    return raised.value.message


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_no_operation_gets_more_memory_or_time_than_there_is(processes, source):
    before = psutil.Process().memory_info().rss

    reason = refused(source, times=10**10)

    assert "takes too much memory" in reason or "takes longer than 4 s" in reason
    assert psutil.Process().memory_info().rss - before < 2**27
    assert write(Conversation("{{ messages[0].content }}", TURNS, {}), 100) == "hi"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('turns must alternate') }}", "refuses the conversation: turns must alternate"),
        ("{{ unknown.name }}", "refuses the conversation: 'unknown' is undefined"),
        ("{% if %}", "refuses the conversation: Expected an expression"),
        ("{{ 'x' * 10 ** 6 }}x", "writes a prompt of 1000001 characters, and at most 1000000 can be read"),
        ("{{ '\\ud800' }}", "surrogates not allowed"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_template_that_refuses_or_fails_says_why(processes, source, reason):
    assert reason in refused(source)


def test_variables_are_those_that_nobody_but_the_request_sets(processes):
    assert read_names("{% set a = b %}{{ a }}{{ messages }}{{ range(3) }}{{ raise_exception }}") == {"b", "messages"}


def test_number_of_a_user_cannot_blow_the_worker_up(load_tiny, monkeypatch, processes):
    model = load_tiny("llama")
    monkeypatch.setattr(model.processor, "chat_template", "{{ messages[0].content }}{{ ' again' * times }}")
    asked = (Message(Role.USER, (TextPart("hi"),)),)

    def prepare(times):
        return model.prepare(asked, {}, ProcessorParams(chat_template_kwargs={"times": times}))

    with pytest.raises(InvalidRequest, match="takes too much memory"):
        prepare(10**12)
    with pytest.raises(InvalidRequest, match="at most 1048576 can be read"):
        prepare(10**6)
    assert len(prepare(2).token_ids) > len(prepare(0).token_ids)


def test_other_conversations_go_on_while_a_template_never_ends(processes):
    plain = Conversation("{{ messages[0].content }}", TURNS, {})
    with processes.lend():  # so that both have started
        write(plain, 100)
    write(plain, 100)
    reasons = []
    hostile = threading.Thread(target=lambda: reasons.append(refused(ENDLESS)))
    hostile.start()

    texts = [write(plain, 100) for _ in range(3)]
    meanwhile = not reasons
    hostile.join()

    assert (texts, meanwhile) == (["hi"] * 3, True)
    assert "takes longer than 4 s" in reasons[0]
