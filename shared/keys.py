"""Redis key and channel names: the only place one is spelled."""

from shared.job import JobId

WORKERS = "workers"
"""Sorted set of worker ids; the score is the Unix time at which the heartbeat goes stale."""


def queue(model: str) -> str:
    """arq's queue of one base model: sorted set, the score is the enqueue time in ms."""
    return f"queue:{model}"


def wake(model: str) -> str:
    """List that idle workers of the model block on; an enqueue pushes one poke."""
    return f"wake:{model}"


def inflight(model: str) -> str:
    """Sorted set of claimed jobs; the score is the lease's expiry in ms of Redis time."""
    return f"inflight:{model}"


def lease(job: JobId) -> str:
    """Hash: who holds the job (`holder`), its `attempt`, and how many workers it has `lost`."""
    return f"lease:{job}"


def log(job: JobId) -> str:
    """Stream of the job's events; the entry id is `<seq>-0`."""
    return f"log:{job}"


def payload(job: JobId) -> str:
    """arq's own key of a queued job (a test compares the prefix with arq's)."""
    return f"arq:job:{job}"


def tries(job: JobId) -> str:
    """arq's count of how often a job was begun, which nobody asks for (a test compares the prefix with arq's)."""
    return f"arq:retry:{job}"


def events(gateway: str) -> str:
    """Channel on which one gateway hears the events of all its jobs."""
    return f"events:{gateway}"


def cancel(worker: str) -> str:
    """Channel on which one worker hears which of its jobs to drop."""
    return f"cancel:{worker}"


def media(sha256: str) -> str:
    """Bytes of one picture, clip or recording, by content hash."""
    return f"media:{sha256}"


def worker(worker_id: str) -> str:
    """The worker's last heartbeat."""
    return f"worker:{worker_id}"


KEPT = "kept"
"""Sorted set of the keys that are kept for later responses; the score is the Unix time until which they are."""
KEPT_BYTES = "kept_bytes"
"""Hash: what each of them takes of Redis's memory, and under the empty field what they take together."""


def response(job: JobId) -> str:
    """What is kept of a response beside its job's log."""
    return f"response:{job}"


def open_jobs(key_name: str) -> str:
    """Set: jobs of one API key that have not ended, and some that have and were not looked at since."""
    return f"open:{key_name}"


def waiting_jobs(key_name: str) -> str:
    """Set: jobs of one API key that wait for a worker, and some that were claimed and were not looked at since."""
    return f"waiting:{key_name}"


def rate(key_name: str) -> str:
    """When one API key's requests so far would be used up at its rate, in ms of Redis time."""
    return f"rate:{key_name}"


ADAPTERS_KNOWN = ""
"""A field beside the adapters of that hash, which no adapter is named: without it, Redis has lost them."""


def adapters(model: str) -> str:
    """Hash: the adapters that every worker of a base model is to have, directory by name."""
    return f"adapters:{model}"


def reconcile(model: str) -> str:
    """Channel on which a base model's workers hear that the hash was changed."""
    return f"reconcile:{model}"


def gpu(host: str, index: str) -> str:
    """Lease of one GPU of one host; the value is the worker that holds it."""
    return f"gpu:{host}:{index}"


FILES = "files"
"""Sorted set of all file ids; the score is the Unix time of their making in ms."""
OPEN_BATCHES = "open_batches"
"""Sorted set of batches that have not ended; the score is when the driver's lease expires, in ms of Redis time, or the
Unix time of their making in seconds, which is long ago, where nobody drives them."""


def file(file_id: str) -> str:
    """Hash: what is known of one file."""
    return f"file:{file_id}"


def pieces(file_id: str) -> str:
    """Hash: one file's bytes, by the numbers of its pieces; some may be missing, which are none."""
    return f"pieces:{file_id}"


def files_of(key_name: str) -> str:
    """Sorted set of the files of one API key, as in `files`."""
    return f"files:{key_name}"


def batch(batch_id: str) -> str:
    """Hash: what is known of one batch, and who drives it (`holder`)."""
    return f"batch:{batch_id}"


def batches_of(key_name: str) -> str:
    """Sorted set of the batches of one API key; the score is the Unix time of their making in ms."""
    return f"batches:{key_name}"
