"""Qwen2-Audio's native classes: weights as the original repository names them, and a forward that the runner can step.

The log-mel frames of a recording become rows of the prompt: two convolutions (the second halves their number), the
tower's blocks, an average of each two frames, and a projection.
"""

from typing import Any

import torch
from torch.nn.functional import gelu
from transformers import Qwen2AudioForConditionalGeneration
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast


def num_rows(num_frames: int) -> int:
    """Return how many rows of the prompt a recording of that many log-mel frames becomes: 25 a second."""
    return _num_halved(num_frames) // 2


def _num_halved(num_frames: int) -> int:
    return (num_frames + 1) // 2


class Qwen2AudioNetwork(Qwen2AudioForConditionalGeneration):  # type: ignore[misc]  # transformers is untyped
    """The native model with a forward of its own: the native one can't skip logits, and takes one row for none."""

    def forward(
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor | None = None,
        num_frames: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits of the last positions, of all if `logits_to_keep` is 0.

        At prefill the rows of `input_features`, shape [recordings, bands, frames], of which `num_frames` each are
        sound, take the places of the first placeholders: what follows the prompt may name more.
        """
        embeds = self.get_input_embeddings()(input_ids)
        if input_features is not None and num_frames is not None:
            mm_encoder_outputs = {"audio": self.get_audio_features(input_features, num_frames)}
        if mm_encoder_outputs is not None:
            heard = torch.cat(mm_encoder_outputs["audio"].pooler_output).to(embeds.dtype)
            places = (input_ids[0] == self.config.audio_token_id).nonzero()[: len(heard), 0]
            embeds[0, places] = heard
        output = self.model.language_model(inputs_embeds=embeds, **kwargs)
        return CausalLMOutputWithPast(logits=self.lm_head(output.last_hidden_state[:, -logits_to_keep:]))

    def get_audio_features(self, input_features: torch.Tensor, num_frames: torch.Tensor) -> BaseModelOutputWithPooling:
        """Return the recordings' rows, [rows, hidden] each."""
        rows = [self.hear(mel, n) for mel, n in zip(input_features, num_frames.tolist(), strict=True)]
        return BaseModelOutputWithPooling(pooler_output=rows)

    def hear(self, mel: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Return the rows of one recording, shape [rows, hidden].

        The original runs all 30 s through the blocks and masks what is padding; leaving it out is the same.
        """
        tower = self.model.audio_tower
        halved = _num_halved(num_frames)
        frames = mel[None, :, : 2 * halved + 2].to(tower.conv1.weight.dtype)  # two more for the convolutions' reach
        frames = gelu(tower.conv2(gelu(tower.conv1(frames))))[:, :, :halved].transpose(1, 2)
        frames = frames + tower.embed_positions.weight[:halved]
        for layer in tower.layers:
            frames = layer(frames, None)
        num_pairs = halved // 2
        pooled = frames[0, : 2 * num_pairs].unflatten(0, (num_pairs, 2)).mean(1)
        rows: torch.Tensor = self.model.multi_modal_projector(tower.layer_norm(pooled))
        return rows


register_checkpoint_conversion_mapping(  # the native one is looked up by the native class only
    Qwen2AudioNetwork.__name__,
    [
        WeightRenaming(r"^language_model\.lm_head\.", "lm_head."),
        WeightRenaming(r"^language_model\.model\.", "model.language_model."),
        WeightRenaming(r"^(audio_tower|multi_modal_projector)\.", r"model.\1."),
    ],
)
