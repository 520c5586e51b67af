"""Pictures as CLIP and its kin see them: a square of normalised colours."""

import numpy as np
import torch
from PIL import Image

MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def to_pixels(picture: Image.Image, side: int) -> torch.Tensor:
    """Return the picture squashed to a square, its colours by CLIP's mean and deviation, shape [3, side, side]."""
    square = picture.resize((side, side), Image.Resampling.BICUBIC)
    scaled = np.asarray(square, dtype=np.float32) / 255
    normal = (scaled - np.array(MEAN, dtype=np.float32)) / np.array(_STD, dtype=np.float32)
    return torch.from_numpy(normal.transpose(2, 0, 1).copy())
