"""Following a grammar token by token: every family's tokens are what they spell, and every way to run them obeys."""

import json
import math
import re

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from api.grammar import choice_grammar, json_grammar, literal, object_grammar, regex_grammar
from shared.events import FinishReason
from shared.grammar import GRAMMAR_LIMITS
from shared.job import SamplingParams
from tests.cases import INTERNVL2, MINICPMV, QWEN2_AUDIO, QWEN_VL, YI_VL
from tests.worker.models import tiny
from tests.worker.models.golden import generate, golden_model, user
from worker.engine import grammar as following
from worker.engine.engine import Engine
from worker.engine.failure import Failure
from worker.engine.grammar import GrammarError, Grammars
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence
from worker.models.fake import Words
from worker.models.generic_decoder import AnswerTokenizer

FOLDERS = {folder.name: folder for folder in (INTERNVL2, YI_VL, QWEN_VL, QWEN2_AUDIO, *MINICPMV.values())}
TEXTS = [
    '{"a": [1, -2.5e3, true, null], "b\\n": "x"}',
    "  two blanks, été, ß, 冬天, 😀, \u0639\u0631 \t\r\n end ",
    "".join(map(chr, range(32, 127))),
    " ###  <0x41> !",
]
SCHEMA = {
    "type": "array",
    "items": {"enum": ["é", "b c", 7, {"k": []}]},
    "minItems": 5,
    "maxItems": 5,
}
TOO_COMPLEX = "(.{1,400}){400}"


def compiled(model, grammar):
    prompt = model.prepare(user("hello"), {})
    return prompt, Grammars(model.runner.vocab_size, GRAMMAR_LIMITS).compile(grammar, prompt)


def sequence(prompt, grammar=None, name="it", token_ids=(), max_tokens=200, **sampling):
    constraint = None if grammar is None else grammar.constraint()
    return Sequence(name, prompt, SamplingParams(**sampling), max_tokens, token_ids, constraint=constraint)


def sentencepiece_like():
    """As the fast tokenizers of Llama's family."""
    letters = {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **letters, "▁": 259, "a": 260, "▁a": 261, "é": 262, "\n\n": 263}
    backend = Tokenizer(models.BPE(words, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def with_added_token():
    backend = tiny.tokenizer(tiny.QWEN)
    backend.add_tokens(["<tool_call>", "冬天"])
    return backend


def of_whole_words():
    words = {"[UNK]": 0, "[SEP]": 1, "a": 2, "##b": 3, "c": 4}
    backend = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing("$A")
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]", unk_token="[UNK]")


def generic_prompt(tokenizer):
    stop = frozenset({tokenizer.eos_token_id})
    return Prompt(token_ids=(0,), tokenizer=AnswerTokenizer(tokenizer), stop_token_ids=stop)


def check_tokens(prompt, vocab_size, text, token_ids):
    """The tokens of a text spell it, are accepted by a grammar of just this text, and only the end may follow."""
    tokenizer = prompt.tokenizer
    spelled = b"".join(tokenizer.answer_bytes(i) for i in token_ids).decode()
    assert spelled.removeprefix(" ") == text.removeprefix(" ")
    constraint = Grammars(vocab_size, GRAMMAR_LIMITS).compile(choice_grammar([spelled], "it"), prompt).constraint()
    for token_id in token_ids:
        assert not constraint.is_complete
        mask = constraint.mask()
        assert mask[token_id // 8] >> token_id % 8 & 1
        constraint.accept(token_id)
    assert constraint.is_complete
    assert allowed(constraint) == prompt.stop_token_ids


def allowed(constraint):
    mask = constraint.mask()
    return {i for i in range(len(mask) * 8) if mask[i // 8] >> i % 8 & 1}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", FOLDERS)
def test_tokens_of_every_family_are_what_they_spell(name, text):
    model = golden_model(folder=FOLDERS[name])

    check_tokens(model.prepare(user("hello"), {}), model.runner.vocab_size, text, model.vocabulary.encode(text))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("build", [lambda: tiny.tokenizer(tiny.QWEN), sentencepiece_like, with_added_token])
def test_tokens_of_other_tokenizers_are_what_they_spell(build, text):
    tokenizer = build()

    check_tokens(generic_prompt(tokenizer), len(tokenizer), text, tokenizer(text, add_special_tokens=False).input_ids)


def test_token_that_was_added_but_is_not_special_is_its_text():
    tokenizer = with_added_token()
    prompt = generic_prompt(tokenizer)

    token_ids = tokenizer("<tool_call> 冬天", add_special_tokens=False).input_ids

    assert len(token_ids) == 3
    check_tokens(prompt, len(tokenizer), "<tool_call> 冬天", token_ids)


@pytest.mark.parametrize("name", FOLDERS)
def test_control_tokens_are_never_text(name):
    model = golden_model(folder=FOLDERS[name])
    controls = {*model.vocabulary.control_ids.values()}

    prompt, grammar = compiled(model, f"start: {'|'.join(map(literal, model.vocabulary.control_ids))} | /(?s:.)*/")

    may_come = allowed(grammar.constraint())
    assert may_come & controls == prompt.stop_token_ids
    assert len(may_come) > 200


@pytest.mark.parametrize("prompt", [generic_prompt(of_whole_words()), Prompt(token_ids=(0,), tokenizer=Words(("a",)))])
def test_tokenizer_that_says_not_what_a_token_adds_is_refused(prompt):
    with pytest.raises(GrammarError, match=r"tokens? (spell|\d adds)"):
        Grammars(5, GRAMMAR_LIMITS).compile('start: "a"', prompt)


def test_text_that_no_token_spells_is_refused():
    prompt = generic_prompt(of_whole_words())
    prompt = Prompt(token_ids=(0,), tokenizer=Only({1: b"a"}), stop_token_ids=prompt.stop_token_ids)

    with pytest.raises(GrammarError):
        Grammars(5, GRAMMAR_LIMITS).compile(choice_grammar(["b"], "it"), prompt)


def test_token_that_ends_the_answer_is_no_text_whatever_it_spells():
    tokenizer = Only({1: b"a", 2: b"b", 3: b"b"})
    prompt = Prompt(token_ids=(0,), tokenizer=tokenizer, stop_token_ids=frozenset({2}))
    constraint = Grammars(5, GRAMMAR_LIMITS).compile(choice_grammar(["ab"], "it"), prompt).constraint()

    constraint.accept(1)

    assert allowed(constraint) == {3}


class Only:
    def __init__(self, texts):
        self._texts = texts

    def decode(self, token_ids):
        return "".join(self._texts.get(i, b"").decode() for i in token_ids)

    def answer_bytes(self, token_id):
        return self._texts.get(token_id)


@pytest.mark.parametrize("name", ["llama", "qwen35", *tiny.ALONE])
def test_every_way_to_run_a_model_obeys(load_tiny, name):
    model = load_tiny(name)
    prompt, grammar = compiled(model, json_grammar(SCHEMA, "it"))
    greedy, hot = sequence(prompt, grammar, "greedy"), sequence(prompt, grammar, "hot", temperature=2.0, seed=1)

    texts = generate(model.runner, greedy, hot, max_num_seqs=1 if name in tiny.ALONE else 2)

    for answer, text in zip((greedy, hot), texts, strict=True):
        assert answer.finish_reason is FinishReason.STOP
        assert answer.token_ids[-1] not in prompt.stop_token_ids
        listed = json.loads(text)
        assert len(listed) == 5
        assert all(one in SCHEMA["items"]["enum"] for one in listed)


def test_answer_goes_on_from_every_token_as_if_nothing_had_happened():
    model = golden_model()
    prompt, grammar = compiled(model, json_grammar(SCHEMA, "it"))
    sampling = {"temperature": 1.5, "seed": 3}
    whole = sequence(prompt, grammar, **sampling)
    (text,) = generate(model.runner, whole)

    resumed = [
        sequence(prompt, grammar, f"{cut}", tuple(whole.token_ids[:cut]), **sampling)
        for cut in range(0, len(whole.token_ids) + 1, 3)
    ]
    rests = generate(model.runner, *resumed)

    assert {tuple(one.token_ids) for one in resumed} == {tuple(whole.token_ids)}
    assert {one.finish_reason for one in resumed} == {FinishReason.STOP}
    assert all(text.endswith(rest) for rest in rests)


def test_rows_beside_it_choose_as_if_alone():
    model = golden_model()
    prompt, grammar = compiled(model, object_grammar())
    plain = {"max_tokens": 30, "temperature": 1.2, "seed": 9}
    (alone,) = generate(model.runner, sequence(prompt, **plain))

    beside, *_ = generate(model.runner, sequence(prompt, **plain), sequence(prompt, grammar, "json", max_tokens=30))

    assert beside == alone


@pytest.mark.parametrize("folder", [INTERNVL2, YI_VL, MINICPMV["2.5"]])
def test_text_is_what_matched_though_the_family_tidies_its_answers(folder):
    """All strip answers, Yi-VL ends them at ###, and MiniCPM-V 2.5 takes away exclamation marks and spaces."""
    model = golden_model(folder=folder)
    prompt, grammar = compiled(model, choice_grammar([" a . b , c!.  ### !  "], "it"))

    (text,) = generate(model.runner, sequence(prompt, grammar))

    assert prompt.strips_answer
    assert text == " a . b , c!.  ### !  "


def test_grammar_that_grows_too_complex_costs_its_own_answer_only():
    model = golden_model()
    prompt, grammar = compiled(model, regex_grammar(TOO_COMPLEX, "it"))
    (alone,) = generate(model.runner, sequence(prompt, max_tokens=60))
    engine, text = Engine(model.runner, 4), ""
    exploding = sequence(prompt, grammar, "exploding", temperature=2.0, seed=1, max_tokens=400)
    for added in (exploding, sequence(prompt, name="plain", max_tokens=60)):
        engine.add(added)

    failures = {}
    while engine.has_work:
        for output in engine.step():
            text += output.text if output.sequence_id == "plain" else ""
            if output.is_last:
                failures[output.sequence_id] = output.failure

    assert failures == {"exploding": Failure.LOST, "plain": None}
    assert text == alone
    resumed = sequence(prompt, grammar, token_ids=tuple(exploding.token_ids))
    assert resumed.is_finished
    assert resumed.finish_reason is None


@pytest.mark.parametrize("limit", ["MAX_MASK_S", "MAX_ACCEPT_S"])
def test_what_takes_too_much_work_costs_its_own_answer_only(limit, monkeypatch):
    model = golden_model()
    prompt, grammar = compiled(model, object_grammar())
    for name in ("MAX_MASK_S", "MAX_ACCEPT_S"):
        monkeypatch.setattr(following, name, 0.0 if name == limit else math.inf)
    dear, plain = sequence(prompt, grammar, "dear"), sequence(prompt, name="plain", max_tokens=8)

    engine = Engine(model.runner, 2)
    for added in (dear, plain):
        engine.add(added)
    while engine.has_work:
        engine.step()

    assert dear.is_lost
    assert len(dear.token_ids) == 1
    assert plain.finish_reason is FinishReason.LENGTH


def test_mask_is_worth_waiting_for_only_while_it_is_new(monkeypatch):
    _, grammar = compiled(golden_model(), object_grammar())
    constraint = grammar.constraint()
    monkeypatch.setattr(following, "PATIENCE_S", 1000.0)
    constraint.begin()

    assert constraint.is_quick
    monkeypatch.setattr(following, "PATIENCE_S", 0.0)
    assert not constraint.is_quick


def test_grammar_whose_beginning_takes_too_much_work_is_refused(monkeypatch):
    model = golden_model()
    compiled(model, object_grammar())
    monkeypatch.setattr(following, "MAX_MASK_S", 0.0)

    with pytest.raises(GrammarError, match="beginning takes more than 0 ms"):
        compiled(model, object_grammar())


def test_grammar_that_may_end_or_go_on_ends_by_the_models_own_token():
    model = golden_model()
    prompt, grammar = compiled(model, regex_grammar("a*", "it"))
    (end,) = prompt.stop_token_ids
    biased = sequence(prompt, grammar, logit_bias=((end, 100.0),))

    (text,) = generate(model.runner, biased)

    assert re.fullmatch("a*", text)
    assert biased.finish_reason is FinishReason.STOP
    assert biased.token_ids[-1] == end


def test_white_space_is_bounded():
    model = golden_model()
    nine = {"type": "array", "items": {"const": 1}, "minItems": 9, "maxItems": 9}
    prompt, grammar = compiled(model, json_grammar(nine, "it"))
    texts = {i: prompt.tokenizer.answer_bytes(i) for i in range(model.runner.vocab_size)}
    bias = {i: 100.0 if b"\n" in text else 50.0 for i, text in texts.items() if text and not text.strip()}

    answer = sequence(prompt, grammar, logit_bias=tuple(bias.items()), max_tokens=1000)
    (text,) = generate(model.runner, answer)

    assert json.loads(text) == [1] * 9
    assert max(map(len, re.findall(r"\s+", text))) == 17
