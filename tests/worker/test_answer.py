"""Text safety: what a client sees never has to be taken back."""

import pytest

from shared.job import SamplingParams
from worker.engine.answer import Answer
from worker.engine.prompt import Prompt


class Bytes:
    """One token a byte."""

    def decode(self, token_ids):
        return bytes(token_ids).decode("utf-8", errors="replace")


def deltas(text: str | bytes, *stop: str, strips: bool = False, rewrites=()) -> tuple[list[str], Answer]:
    answer = Answer(
        Prompt(token_ids=(0,), tokenizer=Bytes(), strips_answer=strips, rewrites=rewrites), SamplingParams(stop=stop)
    )
    shown = []
    for byte in text.encode() if isinstance(text, str) else text:
        shown.append(answer.push(byte))
        if answer.is_stopped:
            break
    shown.append(answer.finish())
    return shown, answer


@pytest.mark.parametrize("text", ["plain", "书生 ist 🐼!", "é" * 50])
def test_characters_are_shown_whole_and_at_once(text):
    shown, _ = deltas(text)

    assert "".join(shown) == text
    assert all("\ufffd" not in delta for delta in shown)
    assert [delta for delta in shown if delta] == list(text)


def test_bytes_that_are_no_character_are_shown_as_such():
    shown, _ = deltas(b"a\xe4\xb8" + b"b")

    assert "".join(shown) == "a\ufffdb"


def test_half_a_character_at_the_end_is_flushed():
    shown, _ = deltas("书".encode()[:2])

    assert shown == ["", "", "\ufffd"]


class Counted(Bytes):
    """Counts what is read, and has tokens without text."""

    num_read = 0

    def decode(self, token_ids):
        self.num_read += len(token_ids)
        return super().decode([i for i in token_ids if i < 256])


@pytest.mark.parametrize("token_id", [ord("a"), 0x80, 300], ids=["text", "no character", "special"])
def test_a_token_costs_the_same_however_long_the_answer_is(token_id):
    tokenizer = Counted()
    answer = Answer(Prompt(token_ids=(0,), tokenizer=tokenizer), SamplingParams())

    said = "".join(answer.push(token_id) for _ in range(2000)) + answer.finish()

    assert said == tokenizer.decode([token_id] * 2000)
    assert tokenizer.num_read < 2000 * 32


class Words:
    """Has tokens without text, and puts blanks between words only."""

    def decode(self, token_ids):
        return " ".join("ab"[i] for i in token_ids if i < 2)


@pytest.mark.parametrize("num_words", [1, 2, 6, 7, 8])
def test_tokens_without_text_leave_what_stands_before_them(num_words):
    token_ids = [0] * num_words + [300] * 40 + [1]
    answer = Answer(Prompt(token_ids=(0,), tokenizer=Words()), SamplingParams())

    assert "".join(map(answer.push, token_ids)) == Words().decode(token_ids)


def test_character_after_many_tokens_without_one_is_shown():
    shown, _ = deltas(b"\x80" * 50 + "书".encode())

    assert "".join(shown) == "\ufffd" * 50 + "书"


def test_stop_string_ends_the_answer_before_it():
    shown, answer = deltas("one two STOP three", "STOP")

    assert "".join(shown) == "one two "
    assert answer.is_stopped


def test_no_piece_of_a_stop_string_is_ever_shown():
    shown, _ = deltas("aSTaSTOaSTOP", "STOP")

    running = ""
    for delta in shown:
        running += delta
        assert not running.endswith(("S", "ST", "STO"))
    assert running == "aSTaSTOa"


def test_held_piece_is_shown_when_the_answer_ends_without_the_stop_string():
    shown, answer = deltas("almost STO", "STOP")

    assert "".join(shown) == "almost STO"
    assert not answer.is_stopped


def test_first_of_several_stop_strings_wins():
    shown, _ = deltas("a-b+c", "+", "-b")

    assert "".join(shown) == "a"


def test_overlapping_beginnings_are_not_missed():
    shown, _ = deltas("aaab", "aab")

    assert "".join(shown) == "a"


def test_stripping_swallows_only_the_outer_white_space():
    shown, _ = deltas("\n  a  b \n", strips=True)

    assert "".join(shown) == "a  b"


def test_stripping_before_a_stop_string():
    shown, _ = deltas(" a b  STOP", "STOP", strips=True)

    assert "".join(shown) == "a b"


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize(
    "text", ["one , two .", " . a  . it 's", "do n't ' do", "a ' b", "what ?!  n", "a .. ' s", "x 'v"]
)
def test_what_the_models_code_replaces_is_never_shown(text, strips):
    rewrites = ((" .", "."), (" ,", ","), (" ?", "?"), (" ' ", "'"), (" n't", "n't"), (" 's", "'s"), (" 've", "'ve"))
    whole = text
    for source, target in rewrites:
        whole = whole.replace(source, target)

    shown, _ = deltas(text, strips=strips, rewrites=rewrites)

    assert "".join(shown) == (whole.strip() if strips else whole)


def test_text_of_the_first_tokens_does_not_depend_on_later_ones():
    """A resumed stream relies on it: replayed tokens show the same text again."""
    whole = "x é 书 STO STOP"
    for cut in range(len(whole.encode())):
        one, _ = deltas(whole, "STOP")
        answer = Answer(Prompt(token_ids=(0,), tokenizer=Bytes()), SamplingParams(stop=("STOP",)))
        assert [answer.push(b) for b in whole.encode()[:cut]] == one[:cut]


def shown_tokens(text: str, *stop: str) -> list[int]:
    """How many tokens are shown after each push, and at the end."""
    answer = Answer(Prompt(token_ids=(0,), tokenizer=Bytes()), SamplingParams(stop=stop))
    counts = []
    for byte in text.encode():
        answer.push(byte)
        counts.append(answer.num_shown)
    answer.finish()
    return [*counts, answer.num_shown]


def test_tokens_count_as_shown_with_the_text_they_begin():
    assert shown_tokens("ab") == [1, 2, 2]
    assert shown_tokens("é!") == [0, 2, 3, 3]
    assert shown_tokens("aSTOx", "STOP") == [1, 1, 1, 1, 5, 5]
    assert shown_tokens("aSTO", "STOP") == [1, 1, 1, 1, 4]
    assert shown_tokens("aSTOP", "STOP") == [1, 1, 1, 1, 1, 1]


def test_stop_string_that_comes_too_early_is_text():
    answer = Answer(Prompt(token_ids=(0,), tokenizer=Bytes()), SamplingParams(stop=("STOP",)))

    early = "".join(answer.push(byte, may_stop=False) for byte in b"STOP ")
    late = "".join(answer.push(byte) for byte in b"x STOP")

    assert (early, late, answer.is_stopped) == ("STOP ", "x ", True)
