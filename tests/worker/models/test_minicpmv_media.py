"""How pictures and clips of any shape are cut for MiniCPM-V; both versions cut alike."""

import pytest
from PIL import Image

from worker.models.minicpmv_media import Slicer

SLICER = Slicer(scale=448, patch_size=14, max_slices=9)


@pytest.mark.parametrize(
    ("num_frames", "rate", "chosen"),
    [
        (24, 6.0, [0, 6, 12, 18]),
        (25, 6.0, [0, 6, 12, 18, 24]),
        (1, 30.0, [0]),
        (5, 2.5, [0, 2, 4]),
        (3, 0.2, [0, 1, 2]),
        (128, 1.0, [1 + 2 * i for i in range(64)]),
    ],
)
def test_one_frame_a_second_is_seen_and_no_more_than_64(num_frames, rate, chosen):
    assert chosen == SLICER.choose_frames(num_frames, rate)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (20_000, 1), (3000, 2000), (448, 448), (449, 448)])
def test_every_shape_of_picture_becomes_whole_patches_and_at_most_nine_slices(size):
    cut = SLICER.cut(Image.new("RGB", size))

    num_slices = 0 if cut.grid is None else cut.grid[0] * cut.grid[1]
    assert len(cut.tiles) == 1 + num_slices
    assert num_slices != 1
    assert num_slices <= 9
    assert all(side % 14 == 0 and side > 0 for tile in cut.tiles for side in tile.shape[1:])


def test_slices_cover_a_picture_row_by_row():
    """Four colours in a square: the fourth slice must be the lower right one."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    whole = Image.new("RGB", (900, 800))
    for index, colour in enumerate(colours):
        left, top = 450 * (index % 2), 400 * (index // 2)
        whole.paste(colour, (left, top, left + 450, top + 400))

    cut = SLICER.cut(whole)

    assert cut.grid == (2, 2)
    for tile, colour in zip(cut.tiles[1:], colours, strict=True):
        assert (tile.mean((1, 2)) > 0).tolist() == [part > 0 for part in colour]
