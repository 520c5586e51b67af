"""Each mechanism is switched off once, in a copy of the tree, and the test that claims to show it has to fail.

`python -m tests.faults.mutants [name …]` runs all of them, or those that are named; `make mutants` does so.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "*.egg-info", ".*_cache")
HAS_FAILED = 1
"""pytest's status when a test failed, and nothing else went wrong."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mechanism, what it does in which file, what is there instead, and the test that is to notice."""

    name: str
    file: str
    before: str
    after: str
    test: str


MUTANTS = (
    Mutant(
        "lease runs out",
        "worker/lease.py",
        "if tonumber(oldest[2]) <= now then",
        "if false then",
        "tests/worker/test_jobs.py::test_answer_of_a_dead_or_hung_worker_is_continued_by_another",
    ),
    Mutant(
        "lease is renewed",
        "worker/queue.py",
        "await asyncio.sleep(self._lease_s / 3)",
        "await asyncio.sleep(self._lease_s * 1000)",
        "tests/worker/test_jobs.py::test_answer_that_takes_longer_than_three_leases_is_finished",
    ),
    Mutant(
        "fence",
        "worker/publisher.py",
        "if redis.call('HGET', lease, 'holder') ~= holder then",
        "if false then",
        "tests/worker/test_jobs.py::test_late_worker_says_nothing_even_if_its_successor_is_silent_yet",
    ),
    Mutant(
        "own late lease",
        "worker/queue.py",
        "            self._on_fenced(claim.job_id)\n            await asyncio.wait({earlier})\n",
        "            pass\n",
        "tests/worker/test_jobs.py::test_worker_that_claims_its_own_job_again_ends_its_earlier_attempt_first",
    ),
    Mutant(
        "replay",
        "worker/task.py",
        "max_tokens, slot, replay.progress",
        "max_tokens, slot, type(replay.progress)()",
        "tests/faults/test_workers.py::test_worker_that[is_killed]",
    ),
    Mutant(
        "hand over at drain",
        "worker/queue.py",
        "            ending.cancel()\n        await self._hand_over_rest()",
        "            ending.cancel()",
        "tests/worker/test_jobs.py::test_terminated_worker_finishes_what_it_can_and_hands_over_the_rest_at_once",
    ),
    Mutant(
        "poison",
        "worker/task.py",
        "MAX_LOST_WORKERS = 2",
        "MAX_LOST_WORKERS = 1000",
        "tests/worker/test_jobs.py::test_job_that_took_two_workers_down_is_failed",
    ),
    Mutant(
        "early cancel",
        "worker/task.py",
        "            self._left.append(job_id)",
        "            pass",
        "tests/worker/test_jobs.py::test_cancel_that_comes_before_its_job_stops_it",
    ),
    Mutant(
        "watchdog of steps",
        "worker/main.py",
        "group.create_task(self._watch_steps(stop)),",
        "",
        "tests/faults/test_stuck.py",
    ),
    Mutant(
        "re-enqueue",
        "api/mailbox.py",
        "if await self._read_log():",
        "if await self._read_log() and False:",
        "tests/faults/test_redis.py::test_redis_that[comes_back_empty]",
    ),
    Mutant(
        "gap filling",
        "api/mailbox.py",
        'entries = await self._redis.xrange(keys.log(self._job_id), min=f"{self._last_seq + 1}-0")',
        "entries = []",
        "tests/api/test_chat.py::test_gap_is_filled_from_the_log",
    ),
    Mutant(
        "memory of the fleet",
        "api/registry.py",
        "if name not in stale_s and beat.stale_s > now}",
        "if False}",
        "tests/faults/test_redis.py::test_gateway_knows_the_workers_that_redis_forgot",
    ),
    Mutant(
        "patience in connecting",
        "shared/address.py",
        'if (retry := self.connection_kwargs.get("retry")) is None:',
        'if (retry := self.connection_kwargs.get("retry")) is None or True:',
        "tests/faults/test_redis.py::test_new_questions_are_answered_while_redis_comes_back_empty",
    ),
    Mutant(
        "cancel of who left",
        "api/dispatch.py",
        "                if self._open.pop(job.id, None):\n                    self._cancel(job)",
        "                self._open.pop(job.id, None)",
        "tests/faults/test_clients.py::test_client_that_leaves_stops_its_job",
    ),
    Mutant(
        "merging for slow readers",
        "api/mailbox.py",
        "MAX_WAITING = 64",
        "MAX_WAITING = 10**9",
        "tests/faults/test_clients.py::test_client_that_reads_slowly_gets_everything_in_fewer_pieces",
    ),
    Mutant(
        "send timeout",
        "api/server.py",
        'if hasattr(socket, "TCP_USER_TIMEOUT"):',
        "if False:",
        "tests/faults/test_clients.py::test_client_that_never_reads_is_let_go",
    ),
    Mutant(
        "readiness first",
        "api/server.py",
        "        self._departure.announce()\n",
        "",
        "tests/api/test_process.py::test_leaving_gateway_says_so_first_and_answers_until_that_is_known",
    ),
    Mutant(
        "time to hear of it",
        "api/server.py",
        "notice_s = 0.0 if sig == signal.SIGINT else self._settings.drain_notice_s",
        "notice_s = 0.0",
        "tests/api/test_process.py::test_leaving_gateway_says_so_first_and_answers_until_that_is_known",
    ),
    Mutant(
        "resuming client",
        "baton/client/course.py",
        '        if not self._last_event_id:\n            return {"method": "POST"',
        '        if True:\n            return {"method": "POST"',
        "tests/faults/test_clients.py::test_stream_whose_gateway",
    ),
)


def fate(mutant: Mutant, tree: Path) -> tuple[int, str]:
    """Run the mutant's test on the tree with the mutation; return pytest's status and what it says of the failure."""
    file = tree / mutant.file
    sound = file.read_text()
    if sound.count(mutant.before) != 1:
        sys.exit(f"{mutant.name}: {mutant.file} has {sound.count(mutant.before)} places like {mutant.before!r}")
    file.write_text(sound.replace(mutant.before, mutant.after))
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", mutant.test],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
    finally:
        file.write_text(sound)
    return run.returncode, next((line for line in run.stdout.splitlines() if line.startswith("E  ")), "")


def main(names: list[str]) -> None:
    """Tell of each mutant whether its test noticed; the status is 1 if one did not."""
    survivors = []
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_BEHIND)
        for mutant in MUTANTS:
            if names and mutant.name not in names:
                continue
            status, told = fate(mutant, tree)
            if status != HAS_FAILED:
                survivors.append(mutant.name)
            print(f"{'red ' if status == HAS_FAILED else f'LIVES ({status})'} {mutant.name}: {told[:160]}", flush=True)
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
