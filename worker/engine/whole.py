"""Which models read their prompts whole and never share them, and why."""

from typing import Any

from worker.engine.cache import LINEAR, layer_kinds
from worker.engine.call import find_decoder, unknown_arguments
from worker.engine.rotary import stretching


def reason_to_read_whole(model: Any, max_model_len: int) -> str | None:
    """Return why a model's prompts of at most so many tokens can't be cut anywhere; None if they can."""
    config = model.config.get_text_config(decoder=True)
    if kinds := sorted(LINEAR.intersection(layer_kinds(config))):
        return f"its layers of kind {', '.join(kinds)} keep a running state, which can't be cut back"
    if beyond := sorted(kind for kind, trained in stretching(config) if max_model_len > trained):
        return (
            f"beyond its trained length its rotary positions ({', '.join(beyond)}) depend on how much is read at once"
        )
    if unknown := unknown_arguments(find_decoder(model)):
        return f"it isn't known how {', '.join(unknown)} of its language model can be cut"
    return None
