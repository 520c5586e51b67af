"""Thousands of damaged files meet the decoder: each gives a medium or a refusal, and nothing else happens."""

import collections
import os

import psutil
import pytest

from shared.errors import InvalidMedia
from shared.job import MediaKind
from tests.fuzz.mutations import corpus
from tests.fuzz.seeds import seeds
from worker.prepare.decoder import one_request, open_decoder
from worker.prepare.limits import DecoderLimits, MediaLimits
from worker.prepare.media import decode_audio, decode_frames, decode_image

NUM_FILES = int(os.environ.get("FUZZ_FILES", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
MAX_GROWTH_BYTES = 64 * 2**20
PARAM = "images[3]"
LIMITS = MediaLimits(max_image_pixels=2**22, max_video_pixels=2**22, max_decoded_bytes=2**24)


def decode(kind, content):
    match kind:
        case MediaKind.IMAGE:
            return decode_image(content, PARAM)
        case MediaKind.VIDEO:
            return decode_frames(content, lambda num_frames, rate: [0, num_frames - 1], PARAM)
        case MediaKind.AUDIO:
            return decode_audio(content, 16_000, PARAM)


def outcome_of(kind, content):
    try:
        decode(kind, content)
    except InvalidMedia as refusal:
        caught = refusal
    else:
        return "decoded"
    assert caught.param == PARAM
    assert len(caught.message) < 500
    return "died" if "breaks its decoder" in caught.message else "refused"


@pytest.fixture(scope="module")
def decoder():
    with open_decoder(DecoderLimits(num_decoders=1, decode_timeout_s=30, decode_memory_bytes=2**30), LIMITS) as opened:
        yield opened


@pytest.mark.parametrize(("kind", "name", "content"), seeds(), ids=[name for _, name, _ in seeds()])
def test_seed_is_whole(decoder, kind, name, content):
    with one_request():
        assert decode(kind, content) is not None


@pytest.mark.timeout(1800)
def test_damaged_files_are_decoded_or_refused(decoder, caplog):
    outcomes = collections.Counter()

    for number, (kind, _, content) in enumerate(corpus(NUM_FILES, SEED)):
        if number == NUM_FILES // 10:
            before = psutil.Process().memory_info().rss
        with one_request():
            outcomes[kind, outcome_of(kind, content)] += 1

    print(dict(outcomes))
    assert sum(outcomes.values()) == NUM_FILES
    assert all(outcomes[kind, outcome] for kind in MediaKind for outcome in ("decoded", "refused"))
    assert [line for line in caplog.messages if "status 1," in line] == []  # an exception that nobody expects
    assert sum(count for (_, outcome), count in outcomes.items() if outcome == "died") <= NUM_FILES // 50
    assert psutil.Process().memory_info().rss - before < MAX_GROWTH_BYTES
