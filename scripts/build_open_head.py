"""Build the open head that ships in the package.

    python scripts/build_open_head.py DATA/headmodel -o fourdface/assets/files/open_head.safetensors

DATA/headmodel/ict_facekit holds ICT-FaceKit's light model (MIT, https://github.com/ICT-VGL/ICT-FaceKit) as
`ict_facekit_light_f16.npz` and `vertex_indices.json`. The build is deterministic: the same input gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from open_head import assemble, pack, sources

from fourdface.blocks.arkit import ARKIT_NAMES

DENSE = Path(__file__).parent / "open_head" / "dense_embedding.json"


def build_arrays(ict: sources.Ict, modes: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All arrays of the asset in metres, and the region masks."""
    from open_head import embedding, uvmap

    head = assemble.build_parts(ict)
    expression = assemble.expression_modes(head, ARKIT_NAMES)
    identity, share = assemble.identity_modes(head, modes)
    click.echo(
        f"{len(head.template)} vertices, {len(head.faces)} faces; {modes} modes hold {share:.5f} of the variance"
    )
    weights, regressor, joints, angle = assemble.skinning(head, expression[ARKIT_NAMES.index("jawOpen")])
    click.echo(f"jaw axis at {joints[2]} (source units); jawOpen = {angle:.3f} rad")
    origin = joints[1]
    masks = assemble.regions(head)
    uv, faces_uv = uvmap.layout(head)
    landmark_faces, landmark_weights = assemble.attach(head, ict.neutral[ict.landmarks68])
    dense_faces, dense_weights = embedding.dense(head, DENSE)
    s = assemble.SCALE
    small = np.uint16
    arrays = {
        "template": ((head.template - origin) * s).astype(np.float32),
        "faces": head.faces.astype(small),
        "shape_basis": (identity * s).astype(np.float16),
        "expression_basis": expression * s,
        "joint_regressor": regressor.astype(np.float32),
        "skinning_weights": weights.astype(np.float32),
        "uv": uv.astype(np.float32),
        "faces_uv": faces_uv.astype(small),
        "mirror_vertices": head.mirror.astype(small),
        "landmark68_faces": landmark_faces.astype(small),
        "landmark68_barycentric": landmark_weights.astype(np.float32),
        "dense_faces": dense_faces.astype(small),
        "dense_barycentric": dense_weights.astype(np.float32),
    }
    return arrays, masks


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="safetensors file."
)
@click.option("--modes", default=70, show_default=True, help="Identity modes kept.")
def main(data: Path, output: Path, modes: int) -> None:
    """Build the open head from the source heads in DATA."""
    ict = sources.load_ict(data / "ict_facekit")
    arrays, masks = build_arrays(ict, modes)
    pack.write_head(output, arrays, ARKIT_NAMES, masks, {"ICT-FaceKit light": "MIT"})
    click.echo(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
