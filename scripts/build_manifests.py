"""Write fourdface/assets/files/manifests.json.gz: names and shapes of the tensors of published checkpoints.

Usage: python scripts/build_manifests.py FOLDER    (a folder with portrait4d/, eg3d_gen3d_coherent3d/ and facecraft4d/,
each with the *manifest*.json that were written by instantiating the networks of the official code)
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "fourdface" / "assets" / "files" / "manifests.json.gz"
PORTRAIT4D = {
    "portrait4d-psi": "portrait4d_psi",
    "genhead": "genhead_generator",
    "portrait4d-discriminator": "dual_discriminator",
    "pdfgc-motion": "pdfgc_motion_encoder",
    "bfm2flame": "bfm2flame_mapper",
    "arcface-iresnet18": "arcface_iresnet18",
}
OTHERS = {
    "eg3d": "eg3d_ffhq512_generator",
    "eg3d-discriminator": "eg3d_ffhq512_discriminator",
    "next3d": "next3d_generator",
    "lp3d-voodoo": "lp3d_voodoo_encoder",
    "rvrt-deblur": "rvrt_deblur",
    "rvrt-reds": "rvrt_sr_reds",
}
LIVEPORTRAIT = {
    "liveportrait-appearance": "appearance_feature_extractor",
    "liveportrait-motion": "motion_extractor",
    "liveportrait-warping": "warping_module",
    "liveportrait-generator": "spade_generator",
}
STITCHING = ("retarget_shoulder", "retarget_mouth", "retarget_eye")
OSG = ("net.0.weight", "net.0.bias", "out_sigma.weight", "out_sigma.bias", "out_rgb.weight", "out_rgb.bias")
FREE_AXES: dict[str, int] = {
    **{f"deformer.flame_deform.{name}": 0 for name in ("lips_idxs", "noinmouth_idxs")},
    **{
        f"deformer.flame_deform.masked_{name}faces": 0
        for name in ("", "eye_", "lips_", "face_wo_eye_", "noinmouth_", "smallface_", "eyelids_")
    },
    "deformer.flame_deform.canonical_shape_face_only": 1,
    **{name: 1 for name in ("dense_faces", "faces", "raw_uvcoords", "uvcoords", "uvfaces")},
}
"""Tensors of which one axis follows the user's head model, not the network."""


def shapes(content: dict[str, Any]) -> dict[str, list[int | None]]:
    """Name -> shape, None for an axis that may have any length."""
    found: dict[str, list[int | None]] = {}
    for name, entry in content.items():
        shape: list[int | None] = list(entry["shape"] if isinstance(entry, dict) else entry)
        if name in FREE_AXES:
            shape[FREE_AXES[name]] = None
        found[name] = shape
    return found


def integers(content: dict[str, Any]) -> list[str]:
    """Names of the tensors that hold whole numbers or booleans."""
    return [name for name, entry in content.items() if not entry["dtype"].startswith("float")]


def build(folder: Path) -> dict[str, Any]:
    """`shapes`: all manifests by the name of the structure; `integers`: for those whose types are known."""

    def read(path: str) -> dict[str, Any]:
        return json.loads((folder / path).read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    manifests: dict[str, dict[str, list[int | None]]] = {}
    whole: dict[str, list[str]] = {}

    def add(key: str, content: dict[str, Any]) -> None:
        manifests[key] = shapes(content)
        whole[key] = integers(content)

    for key, name in PORTRAIT4D.items():
        add(key, read(f"portrait4d/{name}_state_dict_manifest.json")["state_dict"])
    for key, name in OTHERS.items():
        manifests[key] = shapes(read(f"eg3d_gen3d_coherent3d/manifest_{name}.json")["state_dict"])
    add("panohead", read("facecraft4d/panohead_generator_manifest.json"))
    live = read("facecraft4d/liveportrait_manifest.json")
    for key, name in LIVEPORTRAIT.items():
        add(key, live[name])
    stitching = {
        f"{part}.{n}": e for part in STITCHING for n, e in live[f"stitching_retargeting_module/{part}"].items()
    }
    add("liveportrait-stitching", stitching)
    manifests["osg-decoder"] = {name: manifests["genhead"][f"decoder.{name}"] for name in OSG}
    whole["osg-decoder"] = []
    return {"shapes": manifests, "integers": whole}


def main(arguments: list[str]) -> int:
    """Write the file."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    text = json.dumps(build(Path(arguments[0])), separators=(",", ":"))
    TARGET.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
