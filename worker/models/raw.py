"""A prompt that is continued as it stands, for any family."""

from shared.errors import InvalidRequest
from shared.job import Lookup
from shared.progress import Candidate, TokenLogprob
from worker.engine.prompt import Prompt
from worker.models.family import Model, RawPrompt


def read_raw(model: Model, given: RawPrompt, lookup: Lookup | None = None) -> Prompt:
    """Return the prompt; raises InvalidRequest if it has a token that the model doesn't have, or none to answer to."""
    if not isinstance(given, str):
        _check_tokens(model, given)
    prompt = model.prepare_raw(given, is_bare=lookup is not None and lookup.is_bare)
    if lookup is None and not prompt.token_ids:
        raise InvalidRequest("the prompt has no token to go on from; send some text", param="prompt")
    return prompt


def _check_tokens(model: Model, token_ids: tuple[int, ...]) -> None:
    size = model.runner.vocab_size
    if wrong := next((token_id for token_id in token_ids if token_id >= size), None):
        raise InvalidRequest(
            f"prompt names the token {wrong}, but the model's tokens are 0 to {size - 1}", param="prompt"
        )


def echoed(given: RawPrompt, prompt: Prompt) -> str:
    """Return what an answer that repeats its prompt begins with: the text as it stands, or what its tokens spell."""
    if isinstance(given, str):
        return given
    return b"".join(map(prompt.tokenizer.token_bytes, given)).decode(errors="replace")


def spelled(prompt: Prompt) -> tuple[TokenLogprob, ...]:
    """Return the prompt's tokens, each by itself; how likely they were nobody asked."""
    tell = prompt.tokenizer.token_bytes
    return tuple(TokenLogprob(Candidate(token_id, 0.0, tell(token_id))) for token_id in prompt.token_ids)
