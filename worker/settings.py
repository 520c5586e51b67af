"""Settings of one worker process."""

import os
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.catalogue import TOOL_FORMATS, Family
from shared.settings import Named, Settings
from shared.tools import ToolFormat
from worker.prepare.limits import DecoderLimits, MediaLimits

MEDIA, DECODERS = MediaLimits(), DecoderLimits()


class WorkerSettings(Settings):
    """Serve one model: pull its jobs from Redis, decode them in one batch, publish the tokens."""

    aliases: ClassVar[dict[str, str]] = {"model": "model_id_or_path"}
    replaced: ClassVar[dict[str, str]] = dict.fromkeys(
        ("quant_method", "quantization_bit", "quant_bits"), "--quantization bnb-int8, bnb-nf4 or torchao-int8"
    )

    model_type: str | None = Field(None, description="Model type, as internvl2-2b; found from the checkpoint if unset.")
    model_id_or_path: str | None = Field(None, description="Hub id or local directory; the model type's own if unset.")
    ckpt_dir: str | None = Field(None, description="LoRA or merged checkpoint directory of a fine-tuning run.")
    merge_lora: bool = Field(False, description="Merge --ckpt_dir's LoRA into the weights instead of serving both.")
    lora_modules: Named = Field({}, description="LoRA directories to serve beside the model, as name=path …")
    served_model_name: str | None = Field(None, description="The id clients ask for; the model's own if unset.")
    use_hf: bool = Field(
        default_factory=lambda: os.environ.get("USE_HF", "0").lower() in {"1", "true"},
        description="Download from Hugging Face instead of ModelScope.",
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field("auto", description="Precision of the weights.")
    quantization: Literal["none", "bnb-int8", "bnb-nf4", "torchao-int8"] = Field(
        "none", description="Format of the language model's linear layers; needs baton[quantization]."
    )
    device_map: Literal["auto"] | None = Field(
        None, description="auto spreads the model's layers over the GPUs of CUDA_VISIBLE_DEVICES; one GPU if unset."
    )
    max_model_len: int | None = Field(None, gt=0, description="Most tokens of prompt and answer; the model's if unset.")
    max_num_seqs: int = Field(16, gt=0, description="Sequences decoded together in one step.")
    max_num_batched_tokens: int = Field(2048, gt=0, description="Most tokens read and decoded in one step.")
    gpu_memory_utilization: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Share of the device's memory that may be in use; on a CPU by this worker alone.",
    )
    enable_prefix_caching: bool = Field(True, description="Read no prompt's beginning again that a row still holds.")
    enforce_eager: bool = Field(False, description="Decode without recorded steps (CUDA graphs, TorchScript).")
    media_cache_bytes: int = Field(2**28, ge=0, description="Memory for encoded media that may be asked for again.")
    lease_s: float = Field(3.0, gt=0, description="A worker silent for this long loses its jobs to another one.")
    step_timeout_s: float = Field(
        300.0, gt=0, description="A worker whose model takes longer for one step hands its jobs over and ends."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="TCP port for Prometheus; workers of one machine need one each."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of that port; 0.0.0.0 is every interface.")
    max_image_pixels: int = Field(MEDIA.max_image_pixels, gt=0, description="Most pixels of a picture.")
    max_video_frames: int = Field(MEDIA.max_video_frames, gt=0, description="Most frames of a whole clip.")
    max_video_pixels: int = Field(
        MEDIA.max_video_pixels, gt=0, description="Most pixels of the frames that are seen of a clip, together."
    )
    max_audio_s: float = Field(MEDIA.max_audio_s, gt=0, description="Longest recording in seconds.")
    max_audio_channels: int = Field(MEDIA.max_audio_channels, gt=0, description="Most channels of a recording.")
    max_audio_samples: int = Field(
        MEDIA.max_audio_samples, gt=0, description="Most samples of a recording, all channels together."
    )
    max_decoded_bytes: int = Field(
        MEDIA.max_decoded_bytes, gt=0, description="Most bytes that one request's media may take when decoded."
    )
    num_decoders: int = Field(DECODERS.num_decoders, gt=0, description="Most processes that decode at once.")
    decode_timeout_s: float = Field(DECODERS.decode_timeout_s, gt=0, description="Longest time to decode one medium.")
    decode_memory_bytes: int = Field(
        DECODERS.decode_memory_bytes, ge=2**29, description="Most memory of a process that decodes."
    )
    tool_call_parser: Literal["auto", "hermes", "react", "llama3_json", "mistral", "none"] = Field(
        "auto", description="How tools are told and calls are read; auto is the model's own way, none refuses tools."
    )
    drain_timeout_s: float = Field(30.0, ge=0, description="After SIGTERM, running answers may take this long to end.")
    fake_ttft_ms: float = Field(0.0, ge=0, description="The fake model's time to its first token.")
    fake_itl_ms: float = Field(0.0, ge=0, description="The fake model's time between tokens.")

    @model_validator(mode="after")
    def _names_a_model(self) -> Self:
        if self.model_type is None and self.model_id_or_path is None and self.ckpt_dir is None:
            raise ValueError("name a model: --model_type, --model_id_or_path or --ckpt_dir")
        return self

    @model_validator(mode="after")
    def _leaves_room_to_read(self) -> Self:
        if self.max_num_batched_tokens <= self.max_num_seqs:
            raise ValueError(
                f"--max_num_batched_tokens {self.max_num_batched_tokens} leaves no room to read prompts beside "
                f"{self.max_num_seqs} running sequences: set it above --max_num_seqs"
            )
        return self

    def tool_format(self, family: Family, template_format: ToolFormat | None = None) -> ToolFormat | None:
        """How a model of this family, or of a template that knows tools, is told of them; None refuses them."""
        match self.tool_call_parser:
            case "auto":
                return template_format or TOOL_FORMATS[family]
            case "none":
                return None
            case name:
                return ToolFormat(name)

    @property
    def media_limits(self) -> MediaLimits:
        """What a medium may be."""
        return MediaLimits(**{name: getattr(self, name) for name in MediaLimits.__struct_fields__})

    @property
    def decoder_limits(self) -> DecoderLimits:
        """What decoding one may cost."""
        return DecoderLimits(**{name: getattr(self, name) for name in DecoderLimits.__struct_fields__})
