"""Reads a checkpoint's tokenizer files into a vocabulary, without code from the checkpoint.

Sentencepiece models go through sentencepiece itself, as only it decodes broken UTF-8 the way the authors'
tokenizers do; everything else goes through the tokenizers library.
"""

import json
import re
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from worker.models.family import LoadError
from worker.models.piece import bytes_of, spells_bytes
from worker.models.vocabulary import ControlToken, Vocabulary


def read_vocabulary(directory: Path, unlisted: re.Pattern[str] | None = None) -> Vocabulary:
    """Return the vocabulary of the checkpoint in this directory; raises LoadError if it has none.

    Sentencepiece's own pieces that match `unlisted` steer the model too, although no file lists them as control tokens.
    """
    if (directory / "tokenizer.model").exists():
        return _read_sentencepiece(directory, unlisted)
    if (directory / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        return _from_backend(tokenizer.backend_tokenizer, _ordinary_pad(directory, tokenizer))
    if (directory / "vocab.json").exists():
        return _from_backend(Qwen2Tokenizer.from_pretrained(directory).backend_tokenizer)
    raise LoadError(f"{directory} has no tokenizer: neither tokenizer.model, tokenizer.json nor vocab.json")


class SentencePieceCodec:
    """A sentencepiece model."""

    def __init__(self, model: SentencePieceProcessor) -> None:
        self._model = model
        self._size = model.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of ordinary text."""
        token_ids: list[int] = self._model.encode(text)
        return token_ids

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of ordinary tokens; the rows that models add to round their vocabulary have none."""
        text: str = self._model.decode([token_id for token_id in token_ids if token_id < self._size])
        return text

    def piece(self, token_id: int) -> str | None:
        """The model's own string for this id, which the checkpoint may have replaced."""
        return self._model.id_to_piece(token_id) if token_id < self._size else None

    def token_bytes(self, token_id: int) -> bytes:
        """Return what the token adds to a text."""
        return bytes_of(self.piece(token_id) or "", spells=False)


class BackendCodec:
    """A tokenizer of the tokenizers library; its own splitting at added tokens never sees one."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._pieces = {token_id: piece for piece, token_id in backend.get_vocab(with_added_tokens=False).items()}
        self._spells_bytes = spells_bytes(backend)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ordinary text."""
        token_ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return token_ids

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of ordinary tokens."""
        return self._backend.decode(token_ids, skip_special_tokens=False)

    def piece(self, token_id: int) -> str | None:
        """The model's own string for this id."""
        return self._pieces.get(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """Return what the token adds to a text."""
        return bytes_of(self._pieces.get(token_id, ""), spells=self._spells_bytes)


def _read_sentencepiece(directory: Path, unlisted: re.Pattern[str] | None) -> Vocabulary:
    config = _read_json(directory / "tokenizer_config.json")
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at import
    proto.ParseFromString((directory / "tokenizer.model").read_bytes())
    if config.get("legacy") is False:  # such tokenizers put no space before text that follows a control token
        proto.normalizer_spec.add_dummy_prefix = False
    model = SentencePieceProcessor(model_proto=proto.SerializeToString())
    bos = _content(config.get("bos_token", "<s>")) if config.get("add_bos_token", True) else None
    controls = _listed_controls(directory, config, model)
    if unlisted is not None:
        controls = _unlisted_controls(model, unlisted) + controls  # a listed one counts for more
    return Vocabulary(SentencePieceCodec(model), controls, bos, model.unk_id())


def _listed_controls(directory: Path, config: dict[str, Any], model: SentencePieceProcessor) -> list[ControlToken]:
    """Return the added tokens; older checkpoints list only those that the sentencepiece model lacks."""
    if listed := config.get("added_tokens_decoder"):
        return [ControlToken(t["content"], int(i), t.get("rstrip", False)) for i, t in listed.items()]
    own = [i for i in range(model.get_piece_size()) if model.is_control(i) or model.is_unknown(i)]
    added = _read_json(directory / "added_tokens.json")
    return [ControlToken(model.id_to_piece(i), i) for i in own] + [ControlToken(t, i) for t, i in added.items()]


def _unlisted_controls(model: SentencePieceProcessor, unlisted: re.Pattern[str]) -> list[ControlToken]:
    pieces = ((model.id_to_piece(i), i) for i in range(model.get_piece_size()))
    return [ControlToken(piece, i, is_piece=True) for piece, i in pieces if unlisted.fullmatch(piece)]


def _from_backend(backend: Tokenizer, ordinary: str | None = None) -> Vocabulary:
    """Return the vocabulary; `ordinary` is an added token that is text all the same."""
    added = {i: token for i, token in backend.get_added_tokens_decoder().items() if token.content != ordinary}
    begins = backend.encode("", add_special_tokens=True).ids[:1]
    controls = [ControlToken(token.content, token_id, token.rstrip) for token_id, token in added.items()]
    return Vocabulary(BackendCodec(backend), controls, added[begins[0]].content if begins else None, None)


def _ordinary_pad(directory: Path, tokenizer: Any) -> str | None:
    """Return the pad token if it is a word that nothing declares special, as MiniCPM-V 2.5's exclamation mark."""
    listed = {token["content"] for token in _read_json(directory / "tokenizer.json")["added_tokens"]}
    listed |= {
        _content(t) for t in _read_json(directory / "tokenizer_config.json").get("added_tokens_decoder", {}).values()
    }
    words = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    pad: str | None = tokenizer.pad_token
    return pad if pad in words and pad not in listed else None


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else token["content"]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
