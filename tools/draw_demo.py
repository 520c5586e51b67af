"""Draws the READMEs' picture of the demo model at work: what it is shown, what it is asked, what it answers."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import worker.models.companions  # noqa: F401  # before anything imports transformers
from tools.demo.checkpoint import read_checkpoint
from tools.demo.dialogue import Dialogues, Topic
from tools.demo.drawing import Looks, draw
from tools.demo.evaluation import answer
from tools.demo.lesson import Teacher
from tools.demo.scene import MAX_SHAPES, compose
from tools.demo.speaker import Turn
from worker.checkpoint import SHIPPED
from worker.models.tokenizer import read_vocabulary

TARGET = Path(__file__).parents[1] / "docs" / "demo.png"
SIZE = 256
SCENE = compose(("red", "circle", (0.3, 0.3), 0.15), ("blue", "square", (0.7, 0.7), 0.15))
LOOKS = Looks(np.full((1, 2, 3), 244.0), np.zeros(1), np.zeros((1, MAX_SHAPES, 3)))
QUESTIONS = (
    "What is in the picture?",
    "Where is the blue square?",
    "How many shapes are there?",
    "Frame the red circle.",
)
INK, FRAME = (40, 40, 40), (230, 0, 120)


def main() -> None:
    """Ask and draw."""
    picture = draw(SCENE, LOOKS, SIZE, np.random.default_rng(0))
    said = _ask(picture)
    canvas = Image.new("RGB", (SIZE + 470, SIZE), "white")
    canvas.paste(Image.fromarray(picture[0]))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for row, (question, text) in enumerate(zip(QUESTIONS, said, strict=True)):
        pen.text((SIZE + 16, 8 + 49 * row), question, INK, font)
        pen.text((SIZE + 32, 28 + 49 * row), text, FRAME, font)
        for box in re.findall(r"\[\[(\d+), (\d+), (\d+), (\d+)\]\]", text):
            pen.rectangle([int(edge) * SIZE / 1000 for edge in box], outline=FRAME, width=2)
    canvas.save(TARGET, optimize=True)


def _ask(picture: np.ndarray) -> list[str]:
    vocabulary = read_vocabulary(SHIPPED / "demo")
    network, teacher = read_checkpoint(SHIPPED / "demo", vocabulary), Teacher(vocabulary)
    dialogues = (Dialogues(Topic.PICTURE, SCENE, [[Turn("", question, "")]]) for question in QUESTIONS)
    return [answer(network, teacher, dialogue, picture)[0] for dialogue in dialogues]


if __name__ == "__main__":
    main()
