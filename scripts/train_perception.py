"""Make the weights of the embedded perception networks from a folder of pictures and clips.

    train_perception.py label  --images DIR --clips DIR --work DIR --task FILE.task --matte FILE.tflite
    train_perception.py turn   --work DIR
    train_perception.py train  --work DIR --net landmarks|detector|matte --minutes 100
    train_perception.py export --work DIR --output fourdface/assets/files
    train_perception.py report --work DIR --images DIR --clips DIR

`label` runs the teachers (MediaPipe's face landmarker, a portrait segmentation network) once and caches their answers;
it needs mediapipe and ai-edge-litert but no torch. `train` may be stopped and started again: it resumes from its last
checkpoint, and picks up folders labelled since. docs/perception.md tells how the shipped weights were made.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    label = commands.add_parser("label", help="run the teachers and cache their answers")
    label.add_argument("--task", type=Path, required=True, help="MediaPipe face landmarker with blendshapes (.task)")
    label.add_argument("--matte", type=Path, help="portrait segmentation network (.tflite, 256x256)")
    turn = commands.add_parser("turn", help="add wide head turns made out of the labelled pictures")
    train = commands.add_parser("train", help="train one of the three networks")
    train.add_argument("--net", choices=("landmarks", "detector", "matte"), required=True)
    train.add_argument("--minutes", type=float, default=100.0, help="wall-clock horizon of the learning-rate schedule")
    train.add_argument("--batch", type=int, default=64)
    train.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    train.add_argument("--threads", type=int, default=2)
    train.add_argument("--fresh", action="store_true", help="ignore an existing checkpoint")
    train.add_argument("--masks", type=Path, action="append", default=[], help="folder with images/ and fg_masks/")
    export = commands.add_parser("export", help="write the safetensors that ship")
    export.add_argument("--output", type=Path, required=True)
    report = commands.add_parser("report", help="figures on persons left out of training")
    report.add_argument("--seconds", type=float, default=20.0, help="at most this much of each clip")
    report.add_argument("--masks", type=Path, action="append", default=[], help="folder with images/ and fg_masks/")
    for command in (label, report):
        command.add_argument("--images", type=Path, action="append", default=[], help="folder of pictures (repeatable)")
        command.add_argument("--clips", type=Path, action="append", default=[], help="folder of clips (repeatable)")
    for command in (label, turn, train, export, report):
        command.add_argument("--work", type=Path, required=True, help="cache of labels and checkpoints")
    return parser


def main() -> None:
    """Parse the command line and run one step."""
    args = _parser().parse_args()
    if args.command == "label":
        from perception.label import label

        label(args.images, args.clips, args.work, args.task, args.matte)
    elif args.command == "turn":
        from perception.turn import turn

        turn(args.work)
    elif args.command == "train":
        from perception.train import train

        train(args.net, args.work, args.minutes, args.batch, args.rate, args.threads, args.fresh, args.masks)
    elif args.command == "export":
        from perception.export import export

        export(args.work, args.output)
    else:
        from perception.report import report

        report(args.work, args.images, args.clips, args.masks, args.seconds)


if __name__ == "__main__":
    main()
