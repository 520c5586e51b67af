"""What a medium may be, and what its decoding may cost."""

import msgspec


class MediaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Checked against a medium's header before anything is decoded; `WorkerSettings` says what each is."""

    max_image_pixels: int = 178_956_970
    max_video_frames: int = 100_000
    max_video_pixels: int = 178_956_970
    max_audio_s: float = 3600.0
    max_audio_channels: int = 16
    max_audio_samples: int = 2**26
    max_decoded_bytes: int = 2 * 2**30

    def left(self, num_bytes: int) -> "MediaLimits":
        """Return the limits for one more medium of a request whose others take `num_bytes` decoded."""
        return msgspec.structs.replace(self, max_decoded_bytes=self.max_decoded_bytes - num_bytes)


class DecoderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes that decode may take."""

    num_decoders: int = 4
    decode_timeout_s: float = 60.0
    decode_memory_bytes: int = 4 * 2**30
