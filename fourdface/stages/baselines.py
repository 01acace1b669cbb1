"""What any method must beat: the source picture standing still, and the source moved by one 2D similarity a frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..media.resize import resize
from ..metrics import Picture
from ..metrics.judges import JudgeSet
from ..metrics.warp import similarity
from .evaluate import FrameStream


def still_stream(source_u8: np.ndarray, truth: FrameStream) -> FrameStream:
    """The source, as often as the truth has frames and in its size."""

    def frames() -> Iterator[np.ndarray]:
        for image_u8 in truth():
            height, width = image_u8.shape[:2]
            yield source_u8 if source_u8.shape[:2] == (height, width) else resize(source_u8, width, height)

    return frames


def similarity_stream(source_u8: np.ndarray, truth: FrameStream, judges: JudgeSet, every: int = 1) -> FrameStream:
    """The source moved by the similarity that takes its 68 points nearest to the truth's; edges are stretched out.

    Frames that are not judged (`every`) and frames without a face show the last position.
    """

    def frames() -> Iterator[np.ndarray]:
        own = Picture(source_u8, judges).read("landmarks")
        moved = source_u8
        for index, image_u8 in enumerate(truth()):
            points = None if own is None or index % every else Picture(image_u8[..., :3], judges).read("landmarks")
            if points is not None:
                moved = _moved(source_u8, similarity(points, own), (image_u8.shape[0], image_u8.shape[1]))
            yield moved

    return frames


def _moved(image_u8: np.ndarray, to_source: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sample the picture at `to_source` [2,3] of every target pixel (whole numbers), edges repeated."""
    import torch
    from torch.nn import functional

    rows, columns = torch.meshgrid(torch.arange(size[0]).double(), torch.arange(size[1]).double(), indexing="ij")
    points = torch.stack([columns, rows, torch.ones_like(rows)], -1) @ torch.from_numpy(to_source).T
    extent = torch.tensor([image_u8.shape[1], image_u8.shape[0]], dtype=torch.float64)
    grid = ((2 * points + 1) / extent - 1).float()
    image = torch.from_numpy(image_u8.astype(np.float32)).permute(2, 0, 1)[None]
    out = functional.grid_sample(image, grid[None], mode="bilinear", padding_mode="border", align_corners=False)
    return out[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
