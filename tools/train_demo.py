"""Makes the demo model: draws its pictures, trains it, measures it. Everything follows from the seed."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import worker.models.companions  # noqa: F401  # before anything imports transformers
from tools.demo.checkpoint import read_checkpoint
from tools.demo.course import ALONE, SMOKE_STEPS, STEPS, Course
from tools.demo.evaluation import evaluate, table
from tools.demo.lesson import Teacher
from worker.checkpoint import SHIPPED
from worker.models.tokenizer import read_vocabulary

STATE = Path("build/demo")
UNSEEN_SEED = 2**31


def main() -> None:
    """Train what is shipped, or measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluate", action="store_true", help="print what the shipped model gets right, and stop")
    parser.add_argument("--smoke", action="store_true", help="take a short course and throw it away")
    parser.add_argument("--questions", type=int, default=1000, help="how many to ask on each topic with --evaluate")
    parser.add_argument("--stage", choices=ALONE, help="train this one only, beside another one")
    parser.add_argument("--seed", type=int, default=1, help="what the training's data are drawn from")
    options = parser.parse_args()
    if options.evaluate:
        _evaluate(options.questions)
    elif options.smoke:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            Course(state=place, shipped=place, steps=SMOKE_STEPS, seed=options.seed, report=_reporter()).take()
    else:
        Course(state=STATE, shipped=SHIPPED, steps=STEPS, seed=options.seed, report=_reporter()).take(options.stage)


def _evaluate(num_questions: int) -> None:
    vocabulary = read_vocabulary(SHIPPED / "demo")
    network = read_checkpoint(SHIPPED / "demo", vocabulary)
    print(table(evaluate(network, Teacher(vocabulary), UNSEEN_SEED, num_questions)))


def _reporter() -> Callable[[str], None]:
    started_s = time.monotonic()
    return lambda line: print(f"{time.monotonic() - started_s:6.0f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
