"""Pose an avatar and write its Gaussians as a .ply that other viewers of Gaussian splats open.

fourd lift me.jpg -o me.h5
python examples/05_export_ply.py me.h5 -o me.ply --set jawOpen=0.4 --set mouthSmileLeft=0.6
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fourdface.artifacts import Avatar
from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.rotation import matrix_to_quaternion
from fourdface.errors import UsageError
from fourdface.media.ply import GaussianCloud, write_ply
from fourdface.methods.splat.avatar import SplatAvatar
from fourdface.methods.splat.restore import restore_avatar
from fourdface.methods.splat.rig import HeadState


def with_expression(state: HeadState, settings: list[str]) -> HeadState:
    """The state with some coefficients replaced, given as NAME=VALUE."""
    expression = state.expression.clone()
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in ARKIT_INDEX or not value.replace(".", "", 1).isdigit():
            raise UsageError(f"--set {setting}: expected NAME=VALUE with an ARKit name and 0..1, such as jawOpen=0.4")
        expression[ARKIT_INDEX[name]] = min(float(value), 1.0)
    return replace(state, expression=expression)


def axes_of(covariances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quaternions [N,4] wxyz and deviations [N,3] along the axes of covariances [N,6] (xx, xy, xz, yy, yz, zz)."""
    matrices = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3).double()
    variances, axes = torch.linalg.eigh(matrices)
    axes = axes * torch.linalg.det(axes)[:, None, None].sign()  # eigenvectors may come as a mirror image
    return matrix_to_quaternion(axes), variances.clamp_min(0).sqrt()


def to_cloud(avatar: SplatAvatar, state: HeadState) -> GaussianCloud:
    """The avatar in one pose as a plain cloud, in metres, y up."""
    means, covariances = avatar.gaussians(state)
    quaternions, scales = axes_of(covariances)
    # Colours beyond 0..1 are sharpening, which makes sense only in the photo's own view.
    parts = (means, quaternions, scales, avatar.opacity, avatar.colours.clamp(0, 1))
    return GaussianCloud(*(part.numpy().astype(np.float32) for part in parts))


def main() -> None:
    """Read, pose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("avatar.ply"))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an ARKit coefficient")
    args = parser.parse_args()

    artifact = Avatar.read(args.avatar)
    avatar = restore_avatar(artifact)
    cloud = to_cloud(avatar, with_expression(avatar.rig.source, args.set))
    sources = ", ".join(source.name for source in artifact.provenance.sources)
    write_ply(args.output, cloud, comments=(f"synthetic media made by fourd from {sources}",))
    print(f"{args.output}: {len(cloud.means)} Gaussians, {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
