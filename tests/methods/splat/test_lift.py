"""A photo of a known head, lifted: its own view comes back, and what was hidden appears when it moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from fourdface.methods.splat.avatar import Camera, SplatAvatar
from fourdface.methods.splat.lift import Lifted
from fourdface.methods.splat.pixels import SEAM, SEAM_REACH, _overlap
from fourdface.methods.splat.surface import Shell
from support.lifted import lifted_photo
from support.scenes import (
    IRIS_COLOUR,
    PLACE,
    expression,
    head_state,
    make_photo,
    open_head,
    render_mesh,
    vertex_colours,
)

SIZE = 288


@pytest.fixture(scope="module")
def lifted() -> Lifted:
    return lifted_photo(SIZE)[0]


@pytest.fixture(scope="module")
def avatar() -> SplatAvatar:
    return lifted_photo(SIZE)[1]


def shown(avatar: SplatAvatar, state) -> np.ndarray:
    """Picture [H,W,3] over the plate, float."""
    return avatar.render_u8(state, avatar.plate_u8) / 255


def irises(picture: np.ndarray) -> np.ndarray:
    """Pixels [H,W] of the irises' colour, which nothing else above the shirt has."""
    above = np.arange(len(picture))[:, None] < 0.7 * len(picture)
    return (np.linalg.norm(picture - IRIS_COLOUR, axis=-1) < 0.35) & above


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


# ----------------------------------------------------------------------------------------------------- the photo's view


def test_the_photo_comes_back(avatar: SplatAvatar) -> None:
    photo = make_photo(SIZE)
    picture = shown(avatar, avatar.rig.source)
    assert psnr(picture[photo.matte > 0.5], photo.image[photo.matte > 0.5]) >= 32
    assert psnr(picture, photo.image) >= 30, "the rim too"


def test_refinement_makes_it_better_and_leaves_it_in_range() -> None:
    _, avatar, history = lifted_photo(SIZE)
    assert len(history) == 7 and history[-1] > history[0] + 2 and history[-1] >= 32
    assert float(avatar.colours.min()) >= -0.25 and float(avatar.colours.max()) <= 1.25


def test_everything_is_finite_and_in_range(lifted: Lifted, avatar: SplatAvatar) -> None:
    bound = lifted.gaussians
    for name in type(bound).__dataclass_fields__:
        assert np.isfinite(getattr(bound, name)).all(), name
        assert len(getattr(bound, name)) == len(avatar)
    assert bound.triangle.dtype == np.int32
    assert bound.triangle.min() >= 0 and bound.triangle.max() < len(lifted.rig.faces)
    assert bound.opacity.min() > 0 and bound.opacity.max() <= 1
    assert bound.colours.min() >= 0 and bound.colours.max() <= 1, "as lifted; refinement may overshoot a little"
    means, covariances = avatar.gaussians(avatar.rig.source)
    matrix = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3).double()
    assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-9, "covariances are positive"
    assert float((means - torch.from_numpy(PLACE)).norm(dim=-1).max()) < 0.6, "all within arm's reach of the neck"


def test_every_pixel_of_the_person_has_its_gaussian(lifted: Lifted) -> None:
    count = len(lifted.pixel_index)
    covered = np.zeros(SIZE * SIZE, int)
    for cell in (1, 2):
        for down in range(cell):
            for right in range(cell):
                np.add.at(covered, lifted.pixel_index[lifted.cell == cell] + down * SIZE + right, 1)
    covered = covered.reshape(SIZE, SIZE)
    assert covered.max() == 1, "none twice"
    assert covered[lifted.matte > 0.03].all() and not covered[make_photo(SIZE).matte == 0].any()
    assert 0.2 * (lifted.matte > 0.5).sum() < count < (lifted.matte > 0.03).sum(), "calm cells are merged"
    assert not irises(make_photo(SIZE).image)[(covered > 0) & _in_big_cells(lifted)].any(), "but not in the eyes"


def _in_big_cells(lifted: Lifted) -> np.ndarray:
    out = np.zeros(SIZE * SIZE, bool)
    corner = lifted.pixel_index[lifted.cell == 2]
    for shift in (0, 1, SIZE, SIZE + 1):
        out[corner + shift] = True
    return out.reshape(SIZE, SIZE)


def test_pixels_overlap_on_the_seam_of_neck_and_torso_only() -> None:
    labels = np.full((40, 30), -1)
    labels[:20] = 7
    flat = np.zeros((40, 30), np.float32)
    below, above = (_overlap(labels, Shell(flat, flat + share), flat + 1) for share in (0.0, 1.0))
    assert (below[20 - SEAM_REACH : 20 + SEAM_REACH] == SEAM).all() and (above == 1).all()
    assert (_overlap(labels, Shell(flat, flat), flat) == 1).all(), "nobody there"
    assert (below[: 20 - SEAM_REACH] == 1).all() and (below[20 + SEAM_REACH :] == 1).all()


# ------------------------------------------------------------------------------------------------------------- movement


def test_a_blink_covers_the_irises(avatar: SplatAvatar) -> None:
    open_eyes = irises(shown(avatar, avatar.rig.source))
    shut = irises(shown(avatar, head_state(expression(eyeBlinkLeft=1.0, eyeBlinkRight=1.0))))
    assert open_eyes.sum() >= 80 and shut.sum() <= 0.1 * open_eyes.sum()


def test_one_eye_at_a_time(avatar: SplatAvatar) -> None:
    """The subject's left eye is on the picture's right."""
    wink = irises(shown(avatar, head_state(expression(eyeBlinkLeft=1.0))))
    assert wink[:, : SIZE // 2].sum() > 40 and wink[:, SIZE // 2 :].sum() <= 4


def test_gaze_moves_the_irises(avatar: SplatAvatar) -> None:
    def middle(yaw: float) -> float:
        eyes = np.array([0, yaw, 0, 0, yaw, 0], np.float32)
        return float(np.nonzero(irises(shown(avatar, head_state(eyes=eyes))))[1].mean())

    assert middle(0.35) > middle(0.0) + 0.5 and middle(-0.35) < middle(0.0) - 0.5, "subject's left, right"


def test_the_jaw_opens(avatar: SplatAvatar) -> None:
    """Between the lips it gets dark, the chin goes down, and above the nose nothing changes."""
    rest, wide = shown(avatar, avatar.rig.source), shown(avatar, head_state(expression(jawOpen=1.0)))
    difference = np.abs(rest - wide).max(-1)
    above = difference[: int(0.48 * SIZE)]
    assert above.mean() < 1e-3 and np.percentile(above, 99.9) < 0.06, "above the eyes"
    mouth = slice(int(0.66 * SIZE), int(0.80 * SIZE)), slice(int(0.45 * SIZE), int(0.55 * SIZE))
    dark = lambda picture: (picture[mouth].mean(-1) < 0.35).mean()  # noqa: E731
    assert dark(rest) < 0.05 and dark(wide) > 0.15


def test_moved_heads_look_like_the_head(avatar: SplatAvatar) -> None:
    """The same mesh with the same colours, rendered in the new pose, is the truth."""
    photo = make_photo(SIZE)
    for state, least in ((head_state(None, (0.0, 0.2, 0.0)), 19), (head_state(expression(mouthSmileLeft=0.8)), 24)):
        vertices = avatar.rig.pose(state)[: open_head().vertex_count]
        picture, cover = render_mesh(vertices, photo.view, vertex_colours())
        face = ndimage.binary_erosion(cover > 0.99, iterations=4) & (np.arange(SIZE)[:, None] > 0.38 * SIZE)
        assert psnr(shown(avatar, state)[face], picture[face]) > least


@pytest.mark.parametrize("yaw", [-40, 40])
def test_a_turn_opens_no_holes(avatar: SplatAvatar, yaw: int) -> None:
    """Wherever the mesh is, the picture is closed: face, ears, neck and skull."""
    state = head_state(None, (0.0, np.radians(yaw), 0.0))
    vertices = avatar.rig.pose(state)[: open_head().vertex_count]
    _, cover = render_mesh(vertices, make_photo(SIZE).view, vertex_colours())
    inside = ndimage.binary_erosion(cover > 0.99, iterations=3)
    alpha = avatar.render(state).alpha.numpy()
    assert inside.sum() > 8000
    assert (alpha[inside] > 0.9).mean() > 0.995 and np.percentile(alpha[inside], 0.2) > 0.6


def test_the_head_turns_like_its_mirror_image(avatar: SplatAvatar) -> None:
    """The photo is symmetric, so turning left is turning right, mirrored."""
    left = avatar.render(head_state(None, (0.0, 0.5, 0.0)))
    right = avatar.render(head_state(None, (0.0, -0.5, 0.0)))
    assert psnr(left.image.numpy(), right.image.numpy()[:, ::-1]) > 22
    assert np.abs(left.alpha.numpy() - right.alpha.numpy()[:, ::-1]).mean() < 0.02


def test_shoulders_do_not_turn_with_the_head(avatar: SplatAvatar) -> None:
    rest, turned = shown(avatar, avatar.rig.source), shown(avatar, head_state(None, (0.0, 0.6, 0.0)))
    shoulders = slice(int(0.90 * SIZE), SIZE)
    assert np.abs(rest - turned)[shoulders].mean() < 0.03


# ------------------------------------------------------------------------------------------------------------ rendering


def test_without_a_background(avatar: SplatAvatar) -> None:
    output = avatar.render(avatar.rig.source)
    alpha = output.alpha.numpy()
    assert alpha.min() >= 0 and alpha.max() <= 1
    assert alpha[5, 5] == 0 and alpha[SIZE // 2, SIZE // 2] > 0.98
    matte = make_photo(SIZE).matte
    assert np.abs(alpha - matte).mean() < 0.03 and ((alpha > 0.5) == (matte > 0.5)).mean() > 0.98
    depth = output.depth_z.numpy()
    assert 0.7 < depth[SIZE // 2, SIZE // 2] < 0.9, "metres from the camera"


def test_both_ways_to_render_agree(avatar: SplatAvatar) -> None:
    output = avatar.render(avatar.rig.source)
    over = output.image + (1 - output.alpha[..., None]) * torch.from_numpy(avatar.plate_u8 / 255).float()
    picture = avatar.render_u8(avatar.rig.source, avatar.plate_u8)
    assert np.abs(over.clamp(0, 1).numpy() * 255 - picture).max() < 2.5


def test_other_sizes_show_the_same(avatar: SplatAvatar) -> None:
    camera = avatar.camera.scaled(2 * SIZE, 2 * SIZE)
    assert (camera.width, camera.height) == (2 * SIZE, 2 * SIZE)
    large = avatar.render(avatar.rig.source, camera).image.numpy()
    small = avatar.render(avatar.rig.source).image.numpy()
    assert psnr(large.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3)), small) > 25


def test_a_wider_picture_keeps_the_centre(avatar: SplatAvatar) -> None:
    camera = Camera.of(avatar.view).scaled(200, SIZE)
    assert float(camera.intrinsics[0, 2]) == pytest.approx(100) and float(camera.intrinsics[1, 2]) == SIZE / 2
    assert float(camera.intrinsics[0, 0]) == pytest.approx(float(avatar.camera.intrinsics[0, 0]))


# --------------------------------------------------------------------------------------------------------- other photos


@pytest.mark.parametrize("options", [{"yaw": 0.5}, {"jawOpen": 0.7, "mouthSmileLeft": 0.5}, {"eyeBlinkLeft": 1.0}])
def test_photos_that_are_not_frontal_and_calm(options: dict[str, float]) -> None:
    from fourdface.methods.splat.avatar import refine_colours
    from fourdface.methods.splat.lift import lift_photo

    photo = make_photo(120, **options)
    lifted = lift_photo(photo.image, photo.matte, photo.view, photo.rig)
    avatar = SplatAvatar(lifted.rig, lifted.gaussians, photo.view, np.round(lifted.plate * 255).astype(np.uint8))
    assert refine_colours(avatar, lifted, photo.image)[-1] > 30
    front = avatar.render(head_state()).alpha.numpy()
    assert np.isfinite(front).all() and front[60, 60] > 0.9


def test_a_person_that_fills_the_picture() -> None:
    """No background at all, and a matte that is 1 everywhere."""
    from fourdface.methods.splat.lift import lift_photo

    photo = make_photo(120)
    lifted = lift_photo(photo.image, np.ones_like(photo.matte), photo.view, photo.rig)
    assert np.isfinite(lifted.gaussians.local_mean).all() and np.isfinite(lifted.plate).all()
