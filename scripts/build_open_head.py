"""Build the open head that ships in the package.

    python scripts/build_open_head.py DATA/headmodel -o fourdface/assets/files/open_head.safetensors
    python scripts/build_open_head.py DATA/headmodel --report --sheets docs/images     # of the shipped head

DATA/headmodel/ict_facekit holds ICT-FaceKit's light model (MIT, https://github.com/ICT-VGL/ICT-FaceKit) as
`ict_facekit_light_f16.npz` and `vertex_indices.json`. The build is deterministic: the same input gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from open_head import assemble, pack, sources

from fourdface.blocks.arkit import ARKIT_NAMES
from fourdface.blocks.head_model import HeadModel, decode_open_head

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
    expression = assemble.clear_lids(head, expression, identity)
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
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Build and write this file.")
@click.option("--modes", default=70, show_default=True, help="Identity modes kept.")
@click.option("--report", is_flag=True, help="Measure the built (or, without -o, the shipped) head against its source.")
@click.option("--sheets", type=click.Path(file_okay=False, path_type=Path), help="Write pictures of it to this folder.")
def main(data: Path, output: Path | None, modes: int, report: bool, sheets: Path | None) -> None:
    """Build the open head from the source heads in DATA."""
    ict = sources.load_ict(data / "ict_facekit")
    if output is not None:
        arrays, masks = build_arrays(ict, modes)
        pack.write_head(output, arrays, ARKIT_NAMES, masks, {"ICT-FaceKit light": "MIT"})
        click.echo(f"{output}: {output.stat().st_size / 1e6:.2f} MB")
    if report or sheets:
        from open_head import report as measure
        from open_head import sheets as pictures

        model = HeadModel.load() if output is None else HeadModel.from_arrays(decode_open_head(output))
        if report:
            for line in measure.lines(ict, model):
                click.echo(line)
        if sheets is not None:
            pictures.write_all(model, sheets)


if __name__ == "__main__":
    main()
