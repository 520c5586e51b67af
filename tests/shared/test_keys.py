from arq.constants import job_key_prefix, retry_key_prefix

from shared import keys
from shared.job import JobId


def test_keys_of_arqs_are_spelled_as_arq_does() -> None:
    assert keys.payload(JobId("x")) == job_key_prefix + "x"
    assert keys.tries(JobId("x")) == retry_key_prefix + "x"
