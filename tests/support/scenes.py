"""A synthetic person: the open head rendered as a photo of which everything is known.

The head has flat colours by region; hair and shoulders lie outside the mesh, as they do in life. The picture's upper
left corner tells `support.seeing.FakePerception` what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.head_fitting import tracking_world_to_camera
from fourdface.blocks.head_model import HeadModel
from fourdface.methods.splat.rig import HeadState, Rig
from fourdface.methods.splat.surface import View
from fourdface.ops.rasterize_mesh import rasterize_mesh
from support.seeing import corner_colour

PLACE = np.array([0.0, -0.09, 0.12], np.float32)
"""Metres: where the neck joint stands, so that the face is in the middle of the picture, 0.8 m from the camera."""
IRIS_COLOUR = np.array([0.10, 0.25, 0.95])
COLOURS = {
    "scalp": (0.30, 0.20, 0.12), "ears": (0.75, 0.52, 0.44), "neck": (0.74, 0.55, 0.46), "lips": (0.75, 0.30, 0.32),
    "eyelids": (0.72, 0.50, 0.44), "eyeball_left": (0.92, 0.92, 0.92), "eyeball_right": (0.92, 0.92, 0.92),
    "iris_left": IRIS_COLOUR, "iris_right": IRIS_COLOUR, "teeth_upper": (0.95, 0.95, 0.90),
    "teeth_lower": (0.95, 0.95, 0.90),
    "tongue": (0.7, 0.3, 0.3), "gums": (0.7, 0.3, 0.3), "mouth_bag": (0.25, 0.1, 0.1),
}  # fmt: skip
SKIN = (0.80, 0.60, 0.50)


@lru_cache(maxsize=1)
def open_head() -> HeadModel:
    """The embedded head, loaded once."""
    return HeadModel.load("open")


def expression(**values: float) -> np.ndarray:
    """Coefficients [52] by name."""
    out = np.zeros(52, np.float32)
    for name, value in values.items():
        out[ARKIT_INDEX[name]] = value
    return out


def head_state(
    coefficients: np.ndarray | None = None, rotation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    translation: np.ndarray = PLACE, eyes: np.ndarray | None = None,
) -> HeadState:  # fmt: skip
    """A pose; everything left out is at rest."""
    return HeadState.from_arrays(
        expression() if coefficients is None else coefficients, np.asarray(rotation, np.float32), translation,
        np.zeros(6, np.float32) if eyes is None else eyes,
    )  # fmt: skip


def photo_view(size: int) -> View:
    """The tracking camera with a picture of size x size that the head fills well."""
    intrinsics = np.array([[2.0 * size, 0, size / 2], [0, 2.0 * size, size / 2], [0, 0, 1]])
    return View(tracking_world_to_camera(), intrinsics, size, size)


def posed(state: HeadState, shape: torch.Tensor | None = None) -> torch.Tensor:
    """Vertices [V,3] of the open head as the head model itself poses them (neck at rest)."""
    own = None if shape is None else shape[None]
    return open_head()(
        own, state.expression[None], state.rotation[None], state.translation[None], None, state.jaw[None],
        state.eyes[None],
    )[0]  # fmt: skip


def dense_landmarks(state: HeadState, view: View, shape: torch.Tensor | None = None) -> np.ndarray:
    """Dense landmarks [478,2] in pixels of a pose, by the head model and the camera alone."""
    vertices = posed(state, shape)
    points = open_head().landmarks(vertices[None], "dense")[0].numpy().astype(np.float64)
    return view.project(points)[0].astype(np.float32)


def vertex_colours() -> np.ndarray:
    """Colours [V,3] by region, with some large-scale variation over the skin."""
    model = open_head()
    position = model.template.numpy()
    colours = np.tile(np.array(SKIN), (len(position), 1)) * (1 + 0.8 * position[:, 1:2] - 0.4 * position[:, :1])
    for name, colour in COLOURS.items():
        colours[model.regions[name].numpy()] = colour
    return np.clip(colours, 0, 1)


@dataclass(frozen=True)
class Photo:
    """A rendered photo [H,W,3] in [0,1] with its truth: matte [H,W], coverage of the head mesh alone [H,W], camera,
    rig, background [H,W,3]."""

    image: np.ndarray
    matte: np.ndarray
    head: np.ndarray
    view: View
    rig: Rig
    background: np.ndarray

    @property
    def image_u8(self) -> np.ndarray:
        """The photo as it is stored."""
        return np.round(self.image * 255).astype(np.uint8)


def render_mesh(
    vertices: torch.Tensor, view: View, colours: np.ndarray, oversample: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Anti-aliased colour [H,W,3] (premultiplied) and coverage [H,W] of the open head's mesh."""
    intrinsics = view.intrinsics.copy()
    intrinsics[:2] *= oversample
    faces = open_head().faces
    width, height = view.width * oversample, view.height * oversample
    raster = rasterize_mesh(
        vertices, faces.int(), torch.from_numpy(view.world_to_camera).float(), torch.from_numpy(intrinsics).float(),
        width, height, cull_back=True,
    )  # fmt: skip
    index = raster.face_index.numpy()
    covered = (index >= 0)[..., None]
    barycentric = raster.barycentrics.numpy()
    picture = (barycentric[..., None] * colours[faces.numpy()[np.maximum(index, 0)]]).sum(2) * covered

    def down(field: np.ndarray) -> np.ndarray:
        return field.reshape(view.height, oversample, view.width, oversample, -1).mean((1, 3))

    return down(picture), down(covered.astype(np.float64))[..., 0]


def smooth_background(size: int) -> np.ndarray:
    """A greenish ramp [H,W,3] with the corner of one resting face."""
    rows, columns = np.mgrid[:size, :size] / size
    out = np.stack([0.35 + 0.1 * columns, 0.5 + 0.2 * rows, 0.35 - 0.1 * columns], -1)
    out[: size // 8, : size // 8] = np.array(corner_colour()) / 255
    return out


@lru_cache(maxsize=4)
def make_photo(size: int = 144, yaw: float = 0.0, **coefficients: float) -> Photo:
    """A photo of the open head (mean identity), turned by `yaw` radians, with coefficients by name."""
    view = photo_view(size)
    source = head_state(expression(**coefficients), (0.0, yaw, 0.0))
    rig = Rig(open_head(), torch.zeros(open_head().shape_count), source)
    head_picture, head = render_mesh(rig.pose(rig.source)[: open_head().vertex_count], view, vertex_colours())
    background = smooth_background(size)
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    shoulders = np.clip((0.36 - np.abs(columns - 0.5) + 1.2 * np.minimum(rows - 0.93, 0)) * size, 0, 1)
    shoulders = shoulders * np.clip((rows - 0.80) * size, 0, 1)
    hair = np.clip((0.19 - np.hypot(columns - 0.5, (rows - 0.36) / 1.2)) * size, 0, 1)
    image = background
    for alpha, colour in ((shoulders, (0.2, 0.25, 0.6)), (hair, (0.28, 0.18, 0.10))):
        image = alpha[..., None] * np.array(colour) + (1 - alpha[..., None]) * image
    image = head_picture + (1 - head[..., None]) * image
    matte = 1 - (1 - shoulders) * (1 - hair) * (1 - head)
    image, matte = (np.round(field * 255).astype(np.float32) / 255 for field in (image, matte))  # as files hold it
    return Photo(image, matte, head.astype(np.float32), view, rig, background)
