"""The ids of answers: each kind has a prefix of its own, and several prompts of one request have an id together."""

import re
from collections.abc import Sequence

from shared.job import JobId

CHAT_PREFIX = "chatcmpl-"
RAW_PREFIX = "cmpl-"
RESPONSE_PREFIX = "resp_"
_RAW_ID = re.compile(RAW_PREFIX + "[0-9a-f]+(?:-([1-9][0-9]?))?")


def raw_id(name: str, num_prompts: int) -> str:
    """Return the id of the answer to so many prompts, which says how many they are."""
    return f"{RAW_PREFIX}{name}" if num_prompts == 1 else f"{RAW_PREFIX}{name}-{num_prompts}"


def raw_jobs_of(completion_id: str) -> Sequence[JobId]:
    """Return the ids of the jobs behind such an id, one for each prompt; none if it is no such id."""
    if (found := _RAW_ID.fullmatch(completion_id)) is None:
        return ()
    if found[1] is None:
        return (JobId(completion_id),)
    return [JobId(f"{completion_id}-{index}") for index in range(int(found[1]))]
