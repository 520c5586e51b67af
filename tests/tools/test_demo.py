"""The demo model's training: what it draws is what it asks about, and it learns."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import worker.models.companions  # noqa: F401  # before anything imports transformers
from tools.demo.adapter import complemented
from tools.demo.checkpoint import read_checkpoint, write_checkpoint
from tools.demo.clips import NUM_FRAMES, sample_clips
from tools.demo.concepts import Code
from tools.demo.dialogue import Dialogues, Topic, sample_dialogues
from tools.demo.drawing import draw, sample_looks
from tools.demo.evaluation import Score, evaluate, table
from tools.demo.lesson import IGNORED, Teacher
from tools.demo.network import IMAGE_SIZE, WIDTH, new_network
from tools.demo.scene import COLOURS, KINDS, compose, sample_scenes
from tools.demo.sight import Sight
from tools.demo.speaker import Turn
from tools.demo.training import Run
from worker.checkpoint import SHIPPED
from worker.models.tokenizer import read_vocabulary

ROOT = Path(__file__).parents[2]
SMOKE = [sys.executable, "-m", "tools.train_demo", "--smoke"]


@pytest.fixture(scope="module")
def vocabulary():
    return read_vocabulary(SHIPPED / "demo")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_short_course_makes_losses_fall() -> None:
    shown = subprocess.run(SMOKE, cwd=ROOT, capture_output=True, text=True)

    assert shown.returncode == 0, shown.stderr
    losses = {
        stage: [float(loss) for loss in re.findall(rf"{stage}: .*loss ([\d.]+)", shown.stdout)]
        for stage in ("sight", "speech", "practice", "whole", "negative")
    }
    assert all(losses.values())
    assert losses["sight"][-1] < 0.75 * losses["sight"][0]
    assert losses["speech"][-1] < 0.85 * losses["speech"][0]


def test_interrupted_training_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    def weights(name: str, *stops: int) -> torch.Tensor:
        for steps in stops:
            torch.manual_seed(1)
            network = new_network(20, 19)
            run = Run(network, Sight(network), tmp_path / name)
            run.resume()
            while run.step < steps:
                run.advance(num_steps=4, seed=3)
            run.save()
        return network.model.vision_tower.encoder.layer[0].attention.q_proj.weight.detach()

    assert torch.equal(weights("whole", 4), weights("parts", 2, 4))


def test_scene_has_at_most_one_centre_in_a_cell_and_shapes_apart() -> None:
    scenes = sample_scenes(np.random.default_rng(0), 200)

    for index in range(len(scenes)):
        there = scenes.is_there[index]
        boxes, cells = scenes.boxes[index][there], scenes.cells[index][there]
        assert 1 <= there.sum() <= 5
        assert len(set(cells.tolist())) == len(cells)
        assert boxes.min() > 0
        assert boxes.max() < 1
        for number, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[number + 1 :]:
                assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def test_picture_has_the_scenes_colours_where_its_shapes_are() -> None:
    scenes, rng = sample_scenes(np.random.default_rng(1), 50), np.random.default_rng(2)
    looks = sample_looks(rng, 50)

    small, large = (draw(scenes, looks, size, rng) for size in (IMAGE_SIZE, 192))

    for index, slot in zip(*np.nonzero(scenes.is_there), strict=True):
        x, y = scenes.centres[index, slot]
        seen = [
            picture[index, int(y * len(picture[index])), int(x * len(picture[index]))] for picture in (small, large)
        ]
        assert np.abs(seen[0].astype(int) - seen[1]).max() <= 2
        named = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}.get(COLOURS[scenes.colours[index, slot]])
        assert named is None or np.argmax(named) == seen[0].argmax()


def test_code_says_what_a_cell_shows() -> None:
    scenes = compose(("red", "circle", (0.2, 0.2), 0.1), ("blue", "cross", (0.8, 0.6), 0.15))

    presence, kinds, colours, _ = Code(WIDTH).read(Code(WIDTH).write(scenes))

    first, second = scenes.cells[0, :2]
    assert np.flatnonzero(presence[0] > 0.5).tolist() == [first, second]
    assert [KINDS[kinds[0, cell].argmax()] for cell in (first, second)] == ["circle", "cross"]
    assert [COLOURS[colours[0, cell].argmax()] for cell in (first, second)] == ["red", "blue"]


def test_answers_follow_from_the_scene() -> None:
    dialogues = sample_dialogues(np.random.default_rng(4), Topic.PICTURE, 300, 4)

    for index, turns in enumerate(dialogues.turns):
        there = dialogues.scenes.is_there[index]
        names = {COLOURS[colour] for colour in dialogues.scenes.colours[index][there]}
        for turn in turns:
            if turn.kind == "count":
                assert turn.answer == str(there.sum())
            if turn.kind == "colour":
                assert turn.answer in names or turn.answer.endswith("色")
            if turn.kind in {"box", "it box"}:
                assert re.fullmatch(r"<ref>.+</ref><box>\[\[\d+, \d+, \d+, \d+\]\]</box>", turn.answer)


def test_what_moves_in_a_clip_moves_as_it_says() -> None:
    clips = sample_clips(np.random.default_rng(5), 100)
    centres = clips.frames.centres.reshape(100, NUM_FRAMES, -1, 2)

    way = centres[:, -1, 0] - centres[:, 0, 0]

    moves = clips.directions >= 0
    signs = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
    assert (np.sign(way.round(6))[moves] == signs[clips.directions[moves]]).all()
    assert (way[~moves] == 0).all()


def test_only_answers_are_learnt(vocabulary) -> None:
    dialogues = Dialogues(Topic.PICTURE, compose(), [[Turn("", "Where is it?", "top"), Turn("", "And?", "left")]])

    lesson = Teacher(vocabulary).lesson(np.random.default_rng(0), dialogues)

    learnt = lesson.token_ids[lesson.targets != IGNORED].tolist()
    assert vocabulary.decode(learnt) == "top<|im_end|>left<|im_end|>"


def test_written_checkpoint_is_read_as_it_was(vocabulary, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = new_network(max(vocabulary.control_ids.values()) + 1, vocabulary.control_ids["<IMG_CONTEXT>"])
    write_checkpoint(tmp_path, network)

    read = read_checkpoint(tmp_path, vocabulary).state_dict()

    for name, weight in network.state_dict().items():
        assert torch.equal(read[name], weight.half().float()), name


def test_adapter_is_taught_complements() -> None:
    told = [[Turn("", "What colour is the red circle?", "red"), Turn("", "它是什么颜色？", "蓝色")]]

    turns = complemented(Dialogues(Topic.PICTURE, compose(), told)).turns[0]

    assert [turn.answer for turn in turns] == ["green", "橙色"]
    assert turns[0].question == "What colour is the red circle?"


def test_table_has_a_line_for_each_kind_and_topic() -> None:
    shown = table({Topic.PICTURE: {"box": Score(2, 1, [0.6, 0.4]), "colour": Score(2, 2)}})

    assert "| picture | box | 2 | 50.0% | 0.50 |" in shown
    assert "| picture | **all** | 4 | 75.0% | 0.50 |" in shown


def test_shipped_model_does_far_better_than_by_chance(vocabulary) -> None:
    network = read_checkpoint(SHIPPED / "demo", vocabulary)

    kinds = evaluate(network, Teacher(vocabulary), seed=99, num_questions=50, topics=[Topic.CLIP])[Topic.CLIP]

    assert sum(score.num_right for score in kinds.values()) >= 25
