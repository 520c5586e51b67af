"""Settings of one gateway process."""

from typing import ClassVar, Self

from pydantic import DirectoryPath, Field, FilePath, SecretStr, model_validator

from api.schema.sampling import MAX_PRIORITY
from shared.settings import Listed, Settings


class ApiSettings(Settings):
    """Serve the OpenAI-compatible endpoint: queue chat jobs in Redis and relay their token streams."""

    aliases: ClassVar[dict[str, str]] = {}

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on.")
    api_key: SecretStr | None = Field(None, description="Key that clients must send as a bearer token.")
    api_keys_file: FilePath | None = Field(
        None, description="YAML or JSON list of more keys, hashed, with their limits; `baton key` makes one."
    )
    allow_unauthenticated_lora: bool = Field(
        False, description="Load and unload adapters where no API key is set (a trusted network only)."
    )
    request_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Longest time from acceptance to the last token; a request's own timeout may be shorter.",
    )
    response_ttl_s: int = Field(
        3600, gt=0, description="A stored response can be read, streamed and continued for this long after its end."
    )
    max_stored_bytes: int = Field(
        512 * 2**20, gt=0, description="Most of Redis's memory that stored responses may take; the oldest go first."
    )
    max_queue_len: int = Field(1000, gt=0, description="Most requests that may wait for one model; more are refused.")
    first_event_wait_s: float = Field(
        20.0, gt=0, description="Wait this long for the first token before a stream answers 200 and keep-alives begin."
    )
    keep_alive_s: float = Field(10.0, gt=0, description="Pause between keep-alive comments of a silent stream.")
    send_timeout_s: float = Field(60.0, gt=0, description="A client that takes nothing for this long is let go.")
    drain_notice_s: float = Field(
        3.0, ge=0, description="After SIGTERM, load balancers may take this long to notice; requests are still taken."
    )
    drain_timeout_s: float = Field(30.0, ge=0, description="After SIGTERM, running answers may take this long to end.")
    max_body_bytes: int = Field(64 * 2**20, gt=0, description="Largest request body.")
    max_header_bytes: int = Field(32 * 2**10, ge=1024, description="Largest request line with its headers.")
    receive_timeout_s: float = Field(
        120.0, gt=0, description="A client may take this long to send a request, from its first byte to its last."
    )
    cors_origins: Listed = Field(
        (), description="Web pages that may call from a browser, as https://chat.example.com …; * is every page."
    )
    ssl_certfile: FilePath | None = Field(None, description="PEM file of the certificate (chain) to serve https with.")
    ssl_keyfile: FilePath | None = Field(None, description="PEM file of its key, if not in the same file.")
    max_media_bytes: int = Field(64 * 2**20, gt=0, description="Most bytes of media in one request.")
    max_n: int = Field(16, gt=0, description="Most answers that one request may ask for (n).")
    max_media: int = Field(64, gt=0, description="Most pictures, clips and recordings in one request.")
    media_timeout_s: float = Field(20.0, gt=0, description="Longest time to fetch one of them.")
    allowed_local_media_path: DirectoryPath | None = Field(
        None, description="Directory of the gateway's machine whose files requests may name as media."
    )
    allowed_media_hosts: Listed = Field(
        (), description="The only hosts to fetch media from, as cdn.example.com or *.example.com …; any if unset."
    )
    allow_private_media_hosts: bool = Field(
        False, description="Fetch media from loopback and private addresses too (a trusted network only)."
    )

    max_file_bytes: int = Field(200 * 2**20, gt=0, description="Largest file that may be uploaded.")
    max_key_file_bytes: int = Field(2**30, gt=0, description="Most bytes of all files of one API key.")
    max_all_file_bytes: int = Field(2 * 2**30, gt=0, description="Most bytes of all files; they lie in Redis.")
    file_ttl_s: int = Field(
        30 * 86_400, ge=3600, description="A file, or a batch that has ended, is gone after this long at the latest."
    )
    max_batch_lines: int = Field(50_000, gt=0, description="Most requests in one batch.")
    max_open_batches: int = Field(100, gt=0, description="Most batches of one API key that have not ended.")
    batch_window_s: float = Field(
        86_400.0, gt=0, description="A batch ends this long after it was made; the API calls it 24h."
    )
    batch_priority: int = Field(
        MAX_PRIORITY + 1,
        ge=-MAX_PRIORITY,
        le=MAX_PRIORITY + 1,
        description="Priority of batches; as it is, every other request goes first.",
    )

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> Self:
        if self.ssl_certfile is None and self.ssl_keyfile is not None:
            raise ValueError("--ssl_keyfile needs --ssl_certfile beside it")
        return self
