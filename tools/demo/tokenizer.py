"""The demo's tokenizer, in the files of InternVL2's: a sentencepiece model with control tokens beside it."""

import json
import re
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from tools.demo.dialogue import Topic, sample_dialogues
from tools.demo.language import BORDER
from tools.demo.speaker import STEP
from worker.models.internvl2 import SYSTEM

_BOXED = ("<ref>", "</ref>", "<box>", "</box>")
_CONTROLS = ("<|im_end|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", *_BOXED)
_FRAMES = [f"Frame{number}: " for number in range(1, 9)]
_SKELETON = ("\n", "system\n", "user\n", "assistant\n", *_FRAMES, "[[", ", ", "]]")
_NUMBERS = [str(number) for number in range(0, 1001, STEP)]
_NUM_PIECES = 1000


def write_tokenizer(directory: Path) -> None:
    """Learn the pieces from what is said about made-up scenes, and write the files of the original layout."""
    written = BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(set(_sentences()))),
        model_writer=written,
        model_type="bpe",
        vocab_size=_NUM_PIECES,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        num_threads=1,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pretokenization_delimiter=BORDER,
        user_defined_symbols=[text.replace(" ", "\u2581") for text in (*_SKELETON, *_NUMBERS, SYSTEM)],
        minloglevel=2,
    )
    model = SentencePieceProcessor(model_proto=written.getvalue())
    own = {model.id_to_piece(i): i for i in range(model.get_piece_size()) if model.is_control(i) or model.is_unknown(i)}
    added = {token: model.get_piece_size() + number for number, token in enumerate(_CONTROLS)}
    (directory / "tokenizer.model").write_bytes(written.getvalue())
    _write(directory / "added_tokens.json", added)
    _write(directory / "tokenizer_config.json", _tokenizer_config(own | added))


def _sentences() -> Iterable[str]:
    rng = np.random.default_rng(0)
    for topic in Topic:
        for turns in sample_dialogues(rng, topic, 300, 6).turns:
            for turn in turns:
                yield turn.question
                yield re.sub(r"<box>.*</box>|</?ref>", "", turn.answer)


def _tokenizer_config(controls: dict[str, int]) -> dict[str, object]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "tokenizer_class": "InternLM2Tokenizer",
        "added_tokens_decoder": {str(i): {"content": token, **plain} for token, i in controls.items()},
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
