"""The radiance of a posed head: two tri-planes, looked up through their own deformations and blended by masks.

Portrait4D, section 3.1. The paper speaks of blending two rendered feature maps; the published code blends density and
colour sample by sample, as here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fourdface.blocks.decoder import OSGDecoder
from fourdface.ops.triplane_sample import triplane_sample
from fourdface.priors.genhead.deformation import PartField

__all__ = ["HeadField"]


@dataclass(frozen=True)
class HeadField:
    """A field for `blocks/volume_renderer`: points of posed heads to density and colour.

    planes: [B, 6, C, H, W], the first three of eyes and mouth, the others of the head. eyes, mouth: [B, R] masks of the
    rays. blend_densities: inside the mouth's mask the two densities are added and colours weighted by them, instead of
    the mask alone (renders larger than those of the training, where the mask's outline would show).
    """

    planes: Tensor
    decoder: OSGDecoder
    parts: PartField
    eyes: Tensor
    mouth: Tensor
    box_size: float
    blend_densities: bool = False

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points [B, R, S, 3] -> raw density [B, R, S] and features [B, R, S, K]."""
        shape = points.shape[:3]
        still = self.parts.neck(points.flatten(1, 2))
        inside = self.parts.in_eyes(still).to(points.dtype)
        eyes = inside * self._per_sample(self.eyes, shape)
        mouth = self._per_sample(self.mouth, shape)
        head_at = self.parts.moved(still, "head")[0]
        density, colours = self._decoded(self.planes[:, 3:], head_at)
        parts = self.planes[:, :3].split(1)  # split once: slices would have gradients of the whole batch
        mixed = [
            self._with_part(parts[b], b, still[b], (inside[b], eyes[b], mouth[b]), density[b], colours[b])
            for b in range(len(points))
        ]
        out_density, out_colours = (torch.stack(part) for part in zip(*mixed, strict=True))
        return out_density.unflatten(1, shape[1:]), out_colours.unflatten(1, shape[1:])

    @staticmethod
    def _per_sample(mask: Tensor, shape: torch.Size) -> Tensor:
        return mask[:, :, None].expand(shape).flatten(1)

    def _decoded(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [B, N] and colours [B, N, K] of canonical points [B, N, 3], in the points' precision."""
        features = triplane_sample(planes, points, axes="portrait4d", box_size=self.box_size)
        colours, density = self.decoder.decode(features)
        return density[..., 0].to(points.dtype), colours.to(points.dtype)

    def head_density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S] of the head's planes alone at points [B, R, S, 3], and which are in an eye's box.

        For the losses that keep the head out of eyes and mouth.
        """
        shape = points.shape[:3]
        still = self.parts.neck(points.flatten(1, 2))
        density, _ = self._decoded(self.planes[:, 3:], self.parts.moved(still, "head")[0])
        return density.unflatten(1, shape[1:]), self.parts.in_eyes(still).unflatten(1, shape[1:])

    def _with_part(
        self,
        planes: Tensor,
        item: int,
        points: Tensor,
        weights: tuple[Tensor, Tensor, Tensor],
        density: Tensor,
        colours: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Blend the eyes' and mouth's field of one head into the head's; only samples that show it are looked up.

        Raw densities are blended, before their softplus; the part's is first multiplied by (in an eye's box) + (mask of
        the mouth). points [N, 3]; weights: in a box, mask of the eyes times that, mask of the mouth, [N] each.
        """
        inside, eyes, mouth = weights
        shown = torch.nonzero((eyes + mouth) > 0)[:, 0]
        if not len(shown):
            return density, colours
        speaks = mouth[shown] > 0
        at = points[shown]
        moved = torch.empty_like(at)
        for part, chosen in (("mouth", speaks), ("eyes", ~speaks)):
            if chosen.any():
                moved[chosen] = self.parts.moved(at[chosen][None], part, item)[0][0]
        part_density, part_colours = self._decoded(planes, moved[None])
        part_density = part_density[0] * (inside[shown] + mouth[shown])
        share = (eyes + mouth)[shown]
        head_density, head_colours = density[shown], colours[shown]
        new_density = part_density * share + head_density * (1 - share)
        new_colours = part_colours[0] * share[:, None] + head_colours * (1 - share)[:, None]
        if self.blend_densities:
            both = torch.softmax(torch.stack([part_density, head_density]), dim=0)[..., None]
            blended = both[0] * part_colours[0] + both[1] * head_colours
            new_density = torch.where(speaks, part_density + head_density, new_density)
            new_colours = torch.where(speaks[:, None], blended, new_colours)
        return density.index_put((shown,), new_density), colours.index_put((shown,), new_colours)
