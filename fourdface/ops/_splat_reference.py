"""The meaning of `splat`, in plain torch: readable, differentiable, any device and precision."""

from __future__ import annotations

from typing import NamedTuple

import torch

MAX_ALPHA = 0.999
MIN_ALPHA = 1.0 / 255.0
MIN_TRANSMITTANCE = 1e-4
TILE = 16  # pixels a side drawn at once; bounds memory and work, changes nothing in the picture


class SplatOutput(NamedTuple):
    """What `splat` returns: image [H, W, D], alpha [H, W], depth_z [H, W] (expected depth, 0 where alpha is 0)."""

    image: torch.Tensor
    alpha: torch.Tensor
    depth_z: torch.Tensor


class Scene(NamedTuple):
    """The arguments of `splat`, under the same names."""

    means: torch.Tensor
    covariances: torch.Tensor
    colors: torch.Tensor
    opacities: torch.Tensor
    world_to_camera: torch.Tensor
    intrinsics: torch.Tensor
    width: int
    height: int
    background: torch.Tensor | None
    eps2d: float
    near: float
    antialiased: bool

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors among the arguments."""
        return self[:6] if self.background is None else (*self[:6], self.background)

    def batched(self) -> Scene:
        """The same scene with the cameras' axis in front of world_to_camera [C, 4, 4] and intrinsics [C, 3, 3]."""
        if self.world_to_camera.dim() == 3:
            return self
        return self._replace(world_to_camera=self.world_to_camera[None], intrinsics=self.intrinsics[None])


class Projected(NamedTuple):
    """Gaussians on the picture, front to back.

    means2d [M, 2] pixels, conics [M, 3] (inverse covariance xx, xy, yy), opacities [M], depth_z [M], extents [M, 2]
    pixels (half the box outside of which alpha < 1/255), source [M], the index into the inputs.
    """

    means2d: torch.Tensor
    conics: torch.Tensor
    opacities: torch.Tensor
    depth_z: torch.Tensor
    extents: torch.Tensor
    source: torch.Tensor


def splat_reference(
    means: torch.Tensor,
    covariances: torch.Tensor,
    colors: torch.Tensor,
    opacities: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    *,
    background: torch.Tensor | None = None,
    eps2d: float = 0.3,
    near: float = 0.01,
    antialiased: bool = False,
) -> SplatOutput:
    """Draw Gaussians; arguments and result as in `splat`. Differentiable, save for the order and the cut-offs."""
    scene = Scene(
        means, covariances, colors, opacities, world_to_camera, intrinsics, width, height,
        background, eps2d, near, antialiased,
    )  # fmt: skip
    if world_to_camera.dim() == 2:
        return _draw_one(scene)
    drawn = []
    for i, (camera, lens) in enumerate(zip(world_to_camera, intrinsics, strict=True)):
        own_colors = colors[i] if colors.dim() == 3 else colors
        drawn.append(_draw_one(scene._replace(colors=own_colors, world_to_camera=camera, intrinsics=lens)))
    if not drawn:
        empty = colors.new_empty((0, height, width, colors.shape[-1]))
        return SplatOutput(empty, empty[..., 0], empty[..., 0])
    return SplatOutput(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


def _draw_one(scene: Scene) -> SplatOutput:
    """Draw for one camera."""
    colors, width, height, background = scene.colors, scene.width, scene.height, scene.background
    gaussians = project(scene)
    features = torch.cat([colors[gaussians.source], gaussians.depth_z[:, None]], dim=1)
    everything = torch.arange(len(features), device=features.device)
    rows = []
    for top in range(0, height, TILE):
        tall = min(TILE, height - top)
        band = _reaching(gaussians, everything, 1, top, tall)
        tiles = []
        for left in range(0, width, TILE):
            wide = min(TILE, width - left)
            tiles.append(
                _blend_tile(gaussians, _reaching(gaussians, band, 0, left, wide), features, left, top, wide, tall)
            )
        rows.append(torch.cat(tiles, dim=1))
    drawn = torch.cat(rows, dim=0)  # [H, W, D + 2]: colours, depth, transmittance
    image, depth, transmittance = drawn[..., :-2], drawn[..., -2], drawn[..., -1]
    if background is not None:
        image = image + transmittance[..., None] * background.to(image)
    alpha = 1.0 - transmittance
    seen = alpha > 0
    depth_z = torch.where(seen, depth / torch.where(seen, alpha, torch.ones_like(alpha)), torch.zeros_like(depth))
    return SplatOutput(image, alpha, depth_z)


def project(scene: Scene) -> Projected:
    """Project (EWA: first order of the perspective at the centre), drop what cannot be seen, sort by depth."""
    points = _camera_points(scene)
    kept = torch.nonzero((points[:, 2] >= scene.near) & torch.isfinite(points).all(dim=1)).squeeze(1)
    points = points[kept]
    depth_z = points[:, 2]
    means2d, covariance2d = _project_moments(scene, points, scene.covariances[kept])
    xx, xy, yy = covariance2d.unbind(1)
    blurred_xx, blurred_yy = xx + scene.eps2d, yy + scene.eps2d
    determinant = blurred_xx * blurred_yy - xy * xy
    opacity = scene.opacities[kept]
    if scene.antialiased:
        ratio = (xx * yy - xy * xy) / determinant
        opacity = opacity * torch.where(ratio > 0, ratio, torch.zeros_like(ratio)).clamp_min(1e-30).sqrt()

    with torch.no_grad():  # alpha = 1/255 where q = 2 ln(255 o)
        q_max = 2.0 * (opacity / MIN_ALPHA).clamp_min(1e-30).log()
        extents = (q_max.clamp_min(0)[:, None] * torch.stack([blurred_xx, blurred_yy], dim=1)).clamp_min(0).sqrt()
        size = torch.tensor([scene.width, scene.height], dtype=points.dtype, device=points.device)
        inside = ((means2d + extents >= 0.5) & (means2d - extents <= size - 0.5)).all(dim=1)
        visible = (
            (q_max >= 0) & (determinant > 0) & inside & torch.isfinite(extents).all(dim=1) & torch.isfinite(opacity)
        )
        chosen = torch.nonzero(visible).squeeze(1)
        chosen = chosen[torch.sort(depth_z[chosen], stable=True).indices]
    conics = torch.stack([blurred_yy, -xy, blurred_xx], dim=1)[chosen] / determinant[chosen, None]
    return Projected(means2d[chosen], conics, opacity[chosen], depth_z[chosen], extents[chosen], kept[chosen])


def _camera_points(scene: Scene) -> torch.Tensor:
    """Return the centres in the camera's frame [N, 3]."""
    camera = scene.world_to_camera.to(scene.means)
    return scene.means @ camera[:3, :3].T + camera[:3, 3]


def _project_moments(
    scene: Scene, points: torch.Tensor, covariances: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centres [M, 2] (pixels) and covariances [M, 3] (xx, xy, yy, square pixels) on the picture."""
    fx, fy, cx, cy = (scene.intrinsics[i, j].to(points) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    depth_z = points[:, 2]
    direction = points[:, :2] / depth_z[:, None]
    means2d = direction * torch.stack([fx, fy]) + torch.stack([cx, cy])
    # Far beyond the edge the linearisation explodes; its direction stops 0.3 half-fields outside of the picture.
    margin_x, margin_y = 0.15 * scene.width / fx, 0.15 * scene.height / fy
    u = direction[:, 0].clamp(-(cx / fx + margin_x), (scene.width - cx) / fx + margin_x)
    v = direction[:, 1].clamp(-(cy / fy + margin_y), (scene.height - cy) / fy + margin_y)
    zero = torch.zeros_like(u)
    jacobian = torch.stack(
        [fx / depth_z, zero, -fx * u / depth_z, zero, fy / depth_z, -fy * v / depth_z], dim=-1
    ).reshape(-1, 2, 3)
    to_picture = jacobian @ scene.world_to_camera[:3, :3].to(points)
    full = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    covariance2d = to_picture @ full @ to_picture.transpose(1, 2)
    return means2d, torch.stack([covariance2d[:, 0, 0], covariance2d[:, 0, 1], covariance2d[:, 1, 1]], dim=1)


def _reaching(gaussians: Projected, among: torch.Tensor, axis: int, start: int, size: int) -> torch.Tensor:
    """Return those of the Gaussians `among` [K] whose extent along an axis meets the pixels start..start+size-1."""
    with torch.no_grad():
        middle, extent = gaussians.means2d[among, axis], gaussians.extents[among, axis]
        return among[(middle + extent >= start + 0.5) & (middle - extent <= start + size - 0.5)]


def _blend_tile(
    gaussians: Projected, here: torch.Tensor, features: torch.Tensor, left: int, top: int, width: int, height: int
) -> torch.Tensor:
    """Blend the Gaussians `here` [K] front to back; returns [height, width, F + 1]: features and transmittance left."""
    x = torch.arange(width, dtype=features.dtype, device=features.device) + (left + 0.5)
    y = torch.arange(height, dtype=features.dtype, device=features.device) + (top + 0.5)
    dx = (x[None, :] - gaussians.means2d[here, 0:1])[:, None, :]  # [K, 1, w]
    dy = (y[None, :] - gaussians.means2d[here, 1:2])[:, :, None]  # [K, h, 1]
    a, b, c = (gaussians.conics[here, i, None, None] for i in range(3))
    q = a * dx * dx + 2.0 * b * dx * dy + c * dy * dy
    alpha = (gaussians.opacities[here, None, None] * torch.exp(-0.5 * q)).clamp_max(MAX_ALPHA)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, torch.zeros_like(alpha)).reshape(len(here), height * width)

    ones = alpha.new_ones(1, height * width)
    after = torch.cumprod(torch.cat([ones, 1.0 - alpha]), dim=0)  # after[k]: transmittance in front of Gaussian k
    # The Gaussian that would bring a pixel to 1e-4 or below is not drawn, nor is anything behind it.
    drawn = torch.where(after[1:] > MIN_TRANSMITTANCE, alpha, torch.zeros_like(alpha))
    blended = (after[:-1] * drawn).T @ features[here]
    left_over = torch.cumprod(torch.cat([ones, 1.0 - drawn]), dim=0)[-1]
    return torch.cat([blended, left_over[:, None]], dim=1).reshape(height, width, features.shape[1] + 1)
