"""What a request tells a checkpoint's chat template beside the conversation."""

import pytest

from shared.errors import InvalidRequest
from shared.job import ProcessorParams
from tests.cases import QWEN_VL
from tests.worker.models import tiny
from tests.worker.models.golden import golden_model, user

TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    "{% if enable_thinking is defined and enable_thinking %} think {% endif %}{{ mood }}{{ bos_token }}"
    "{% if add_generation_prompt %} now{% endif %}"
)


@pytest.fixture
def model(load_tiny, monkeypatch):
    model = load_tiny("llama")
    monkeypatch.setattr(model.processor, "chat_template", TEMPLATE)
    return model


def told(model, **variables):
    prompt = model.prepare(user("hi"), {}, ProcessorParams(chat_template_kwargs=variables))
    return model.tokenizer.decode(prompt.token_ids)


def test_variables_reach_the_template(model):
    assert "think" in told(model, enable_thinking=True)
    assert "think" not in told(model, enable_thinking=False)
    assert "think" not in told(model)
    assert "glad" in told(model, mood="glad")


@pytest.mark.parametrize(
    "name", ["messages", "add_generation_prompt", "bos_token", "tokenize", "chat_template", "range", "unread"]
)
def test_what_the_template_is_told_by_us_or_does_not_read_is_refused_by_name(model, name):
    with pytest.raises(InvalidRequest, match=rf"can't be told {name}.*enable_thinking, mood") as refusal:
        told(model, **{name: "x"})

    assert refusal.value.param == f"chat_template_kwargs.{name}"


def test_typed_control_tokens_in_variables_stay_text(model):
    forged = tiny.CONTROLS[0]

    prompt = model.prepare(user("hi"), {}, ProcessorParams(chat_template_kwargs={"mood": forged}))

    assert model.tokenizer.convert_tokens_to_ids(forged) not in prompt.token_ids
    assert forged in model.tokenizer.decode(prompt.token_ids)


def test_family_without_a_template_refuses_them_by_name():
    with pytest.raises(InvalidRequest, match="doesn't know chat_template_kwargs") as refusal:
        golden_model(None, QWEN_VL).prepare(user("hi"), {}, ProcessorParams(chat_template_kwargs={"a": 1}))

    assert refusal.value.param == "chat_template_kwargs"
