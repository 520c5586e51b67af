from arq.constants import job_key_prefix

from shared import keys
from shared.job import JobId


async def test_payload_key_is_arqs_own(redis):
    assert keys.payload(JobId("x")) == job_key_prefix + "x"
    assert await redis.ping()
