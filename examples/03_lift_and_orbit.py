"""From Python: find the face, fit the head, lift the avatar, fly around it.

    python examples/03_lift_and_orbit.py me.jpg -o orbit.mp4 --avatar me.h5

Each stage is a plain function from artifact to artifact; the `fourd` commands are thin wrappers around them.
"""

from __future__ import annotations

import argparse
import itertools
from fractions import Fraction
from pathlib import Path

from skimage.data import astronaut

from fourdface.artifacts import Avatar, Provenance
from fourdface.blocks.head_model import HeadModel
from fourdface.media.image import read_image
from fourdface.media.resize import resize_longest
from fourdface.media.video import VideoWriter
from fourdface.methods.splat.restore import restore_avatar
from fourdface.perception import load_perception
from fourdface.stages.fit_flame import fit_flame
from fourdface.stages.lift import lift
from fourdface.stages.preprocess import PreprocessOptions, Source, preprocess
from fourdface.stages.render import make_canvas, orbit_path, render_frames


def lift_photo(photo: Path | None, size: int) -> Avatar:
    """A photo (None: NASA's portrait of Eileen Collins) becomes an avatar; `size` limits its longest side."""
    image_u8 = resize_longest(astronaut()[:340, 55:395] if photo is None else read_image(photo), size)
    height, width = image_u8.shape[:2]
    name = "astronaut" if photo is None else photo.name
    made_by = Provenance(command="examples/03_lift_and_orbit.py", method="splat", synthetic_media=True)

    source = Source([(image_u8, 0.0)], width, height, Fraction(1), name, "")
    options = PreprocessOptions(mattes=True, keep_frames=True)
    tracked = preprocess(source, load_perception(), made_by, options)  # landmarks, coefficients, matte
    model = HeadModel.load("open")
    fitted = fit_flame(tracked, model, made_by)  # identity, expression, pose, camera
    avatar, psnr = lift(fitted, model, made_by)  # Gaussians on the head's triangles
    print(f"{name}: {len(avatar.tensors['triangle'])} Gaussians, the photo is reproduced at {psnr:.1f} dB")
    return avatar


def main() -> None:
    """Lift, then render an orbit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path, nargs="?", help="default: NASA's astronaut")
    parser.add_argument("-o", "--output", type=Path, default=Path("orbit.mp4"))
    parser.add_argument("--avatar", type=Path, help="also keep the avatar here")
    parser.add_argument("--size", type=int, default=512, help="longest side in pixels")
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--degrees", type=float, default=35.0, help="how far to each side")
    args = parser.parse_args()

    avatar = lift_photo(args.photo, args.size)
    if args.avatar:
        avatar.write(args.avatar, overwrite=True)
    splat = restore_avatar(avatar)
    canvas = make_canvas(splat, "white", None, args.size)
    cameras = orbit_path(splat, canvas, args.frames, args.degrees, 8.0)
    states = itertools.repeat(splat.rig.source)  # the pose of the photo
    tags = {"comment": "synthetic media made by fourd"}
    with VideoWriter(args.output, canvas.width, canvas.height, 25, metadata=tags) as writer:
        for picture in render_frames(splat, states, cameras, canvas.background_u8):
            writer.write(picture)
    print(f"{args.output}: {args.frames} frames")


if __name__ == "__main__":
    main()
