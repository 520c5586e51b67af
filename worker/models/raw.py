"""A prompt that is continued as it stands, for any family."""

from shared.errors import InvalidRequest
from worker.engine.prompt import Prompt
from worker.models.family import Model, RawPrompt


def read_raw(model: Model, given: RawPrompt, *, is_bare: bool = False) -> Prompt:
    """Return the prompt; raises InvalidRequest if it has no token, or one that the model doesn't have."""
    if not isinstance(given, str):
        check_tokens(model, given, "prompt")
    prompt = model.prepare_raw(given, is_bare=is_bare)
    if not prompt.token_ids and not is_bare:
        raise InvalidRequest("the prompt has no token to go on from; send some text", param="prompt")
    return prompt


def check_tokens(model: Model, token_ids: tuple[int, ...], param: str) -> None:
    """Raise InvalidRequest for an id that no token of the model has."""
    size = model.runner.vocab_size
    if wrong := next((token_id for token_id in token_ids if token_id >= size), None):
        raise InvalidRequest(
            f"{param} names the token {wrong}, but the model's tokens are 0 to {size - 1}", param=param
        )
