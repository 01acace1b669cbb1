"""What `fourd eval` does between its input and its output: open results and truths, run methods, write reports."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourdface.cli.evaluating_extras import cost_of, measured, sounds_of
from fourdface.cli.sources import expand_inputs
from fourdface.cli.stream import (
    Output,
    command_line,
    open_output,
    output_folder,
    progress,
    read_artifact,
    source_of,
    write_artifact,
)
from fourdface.errors import FourdError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from fourdface.artifacts import Provenance, Report
    from fourdface.cli.lifting import LiftRequest
    from fourdface.cli.networks import NetworkRequest
    from fourdface.metrics.judges import JudgeSet
    from fourdface.stages.evaluate import Clip, FrameStream, Protocol

Options = dict[str, Any]
log = logging.getLogger(__name__)


def run_pairs(result: str | None, truth: str | None, manifest: str | None, options: Options) -> None:
    """`fourd eval pairs`."""
    from fourdface.stages.evaluate import Clip

    if (manifest is None) == (result is None):
        raise UsageError("give RESULT and TRUTH, or --manifest FILE")
    if manifest is None and truth is None:
        raise UsageError(
            f"RESULT is {result}, and TRUTH is missing: the video, folder or frames artifact to compare with"
        )
    with Session("pairs", options) as session:
        rows = _manifest(Path(manifest)) if manifest else [_row(str(result), str(truth))]
        clips = [
            Clip(
                row["name"], {"result": frame_stream(Path(row["result"]))}, frame_stream(Path(row["reference"])),
                _picture(row.get("source")), _hashes(result=row["result"], reference=row["reference"]),
                **session.beside({"result": Path(row["result"])}, Path(row["reference"])),
            )
            for row in session.mine(rows, key=lambda row: row["name"])
        ]  # fmt: skip
        session.finish(clips)


def _row(result: str, truth: str) -> dict[str, str]:
    return {"name": Path(truth).stem or "pair", "result": result, "reference": truth}


def clip_inputs(arguments: tuple[str, ...]) -> list[Path]:
    """Clips: videos, folders of pictures, and what lies in any other folder."""
    from fourdface.media.image import list_images

    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir() and list_images(path):
            found.append(path)
        elif path.is_dir():
            found += sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        else:
            found += expand_inputs((argument,))
    return list(dict.fromkeys(found))


def _manifest(path: Path) -> list[dict[str, str]]:
    """A list of {result, reference, name?, source?}; relative paths count from the manifest's folder."""
    import yaml

    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FourdError(f"{path} is no yaml or json list of pairs: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(rows, list) or not rows:
        raise FourdError(f"{path} must hold a list of pairs (result, reference and, if you like, name and source)")
    out = []
    for number, row in enumerate(rows):
        known = {"name", "result", "reference", "source"}
        if not isinstance(row, dict) or not {"result", "reference"} <= set(row) <= known:
            raise FourdError(f"{path}: entry {number} must have result and reference, and may have name and source")
        placed = {key: str(path.parent / str(row[key])) for key in ("result", "reference", "source") if key in row}
        out.append({"name": str(row.get("name", Path(str(row["reference"])).stem)), **placed})
    names = [row["name"] for row in out]
    if len(set(names)) < len(names):
        raise FourdError(f"{path}: two entries have the name {max(names, key=names.count)}; give each its own")
    return out


def run_self(clips: tuple[str, ...], options: Options) -> None:
    """`fourd eval self-reenact`."""
    from fourdface.media.image import encode_png
    from fourdface.stages.evaluate import Clip

    with Session("self-reenact", options) as session:
        session.require_systems()
        made = []
        for path in session.mine(clip_inputs(clips), key=lambda path: path.stem):
            first = next(frame_stream(path)())[..., :3]
            photo = session.work / "sources" / f"{path.stem}.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            photo.write_bytes(encode_png(first))
            paths = session.results(path.stem, photo, path)
            results = {label: frame_stream(place) for label, place in paths.items()}
            results |= session.baselines(first, path)
            hashes, extras = _hashes(reference=str(path)), session.beside(paths, path)
            made.append(Clip(path.stem, results, frame_stream(path), first, hashes, **extras))
        session.finish(made)


def run_cross(clips: tuple[str, ...], photos: tuple[str, ...], options: Options) -> None:
    """`fourd eval cross-reenact`."""
    from fourdface.stages.evaluate import Clip

    with Session("cross-reenact", options) as session:
        session.require_systems()
        pairs = [(photo, clip) for photo in expand_inputs(photos) for clip in clip_inputs(clips)]
        made = []
        for photo, clip in session.mine(pairs, key=lambda pair: f"{pair[0].stem}+{pair[1].stem}"):
            name = f"{photo.stem}+{clip.stem}"
            hashes = _hashes(source=str(photo), reference=str(clip))
            paths = session.results(name, photo, clip)
            results = {label: frame_stream(place) for label, place in paths.items()}
            extras = session.beside(paths, clip)
            made.append(Clip(name, results, frame_stream(clip), _picture(str(photo)), hashes, **extras))
        session.finish(made)


def run_generator(generated: str, real: str, options: Options) -> None:
    """`fourd eval generator`."""
    from fourdface.stages.evaluate import Clip

    with Session("generator", {**options, "lengths": "trim"}) as session:
        hashes = _hashes(result=generated, reference=real)
        clip = Clip("all", {"generated": frame_stream(Path(generated))}, frame_stream(Path(real)), None, hashes)
        session.finish([clip])


def run_merge(reports: tuple[str, ...], output: str | None, overwrite: bool) -> None:
    """`fourd eval merge`."""
    from fourdface.artifacts import Report
    from fourdface.stages.report_summary import merge_reports

    target = _Target(output, overwrite)
    parts = [read_artifact(Report, path) for path in reports]
    provenance = dataclasses.replace(parts[0].provenance, command=command_line())
    target.write(merge_reports(parts, provenance))


class Session:
    """One run of a protocol: its rules, judges and output, and a folder for what methods make."""

    def __init__(self, name: str, options: Options) -> None:
        from fourdface.stages.protocols import load_protocol

        self.options = options
        self.target = _Target(options.get("output"), options["overwrite"])
        self.protocol: Protocol = load_protocol(name, options.get("protocol"))
        changes = {key: options[key] for key in ("every", "lengths", "sizes") if options.get(key)}
        if options.get("metrics"):
            changes["metrics"] = tuple(options["metrics"].split(","))
        self.protocol = dataclasses.replace(self.protocol, **changes)
        self.judges: JudgeSet = _judges(options["judges"], options.get("models"))
        if "motion" in self.protocol.metrics:
            from fourdface.stages.protocols import add_motion

            add_motion(self.judges)
        self.work = Path()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Session:
        kept = self.options.get("work")
        folder = kept or self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fourd-eval-"))
        self.work = Path(folder)
        self.work.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *details: object) -> None:
        from fourdface.metrics.judges import release

        release()
        self._stack.close()

    def require_systems(self) -> None:
        """Refuse a call in which there is nothing to judge."""
        if not self.options.get("method") and not self.options.get("results"):
            raise UsageError("nothing to judge; give --method splat, --results NAME=FOLDER, or both")
        if self.options.get("weights") and len(self.options.get("method", ())) != 1:
            raise UsageError("--weights are those of one method; give one --method with them")

    def mine(self, items: Sequence[Any], key: Any) -> list[Any]:
        """The items of this shard, in the order of their names."""
        ordered = sorted(items, key=key)
        names = [key(item) for item in ordered]
        if len(set(names)) < len(names):
            raise UsageError(f"two inputs are called {max(names, key=names.count)}; rename one, names label the rows")
        index, count = self.options.get("shard") or (0, 1)
        chosen = ordered[index::count]
        if not chosen:
            raise UsageError(f"--shard {index}/{count} has nothing to do: there are {len(ordered)} sequences")
        return chosen

    def results(self, name: str, photo: Path, driver: Path) -> dict[str, Path]:
        """Result of every system for one sequence: given ones, and those of methods, which are run now."""
        found = {label: _result(folder, name) for label, folder in self.folders()}
        for method in self.options.get("method", ()):
            found[method] = self._reenacted(method, name, photo, driver)
        return found

    def beside(self, results: dict[str, Path], truth: Path) -> dict[str, Any]:
        """Sound and costs of the results, as `Clip` takes them, so far as metrics of the protocol want them."""
        metrics = self.protocol.metrics
        asked = {"seconds", "memory"} & set(metrics)
        costs = {label: cost_of(place) for label, place in results.items()} if asked else {}
        return {"sounds": sounds_of(results, truth, metrics), "costs": costs}

    def folders(self) -> Iterator[tuple[str, Path]]:
        """Name and folder of every --results."""
        for entry in self.options.get("results", ()):
            label, mark, folder = entry.partition("=")
            if not mark:
                label, folder = Path(entry).name, entry
            if not Path(folder).is_dir():
                raise FourdError(f"--results {entry}: {folder} is no folder; expected NAME=FOLDER")
            yield label, Path(folder)

    def lifting(self, photo: Path, method: str, focal: float | None = None) -> LiftRequest:
        """How a method of fourd lifts a photo."""
        from fourdface.cli.lifting import LiftRequest

        return LiftRequest(str(photo), method, size=self.options["size"], focal=focal, network=self.network)

    @property
    def network(self) -> NetworkRequest:
        """The networks' options, for lift, reenact and render alike."""
        from fourdface.cli.networks import NetworkRequest

        return NetworkRequest(weights=self.options.get("weights"))

    def place(self, method: str) -> Path:
        """Where in the work folder a method's results are kept: each file of weights has its own."""
        weights = self.options.get("weights")
        if weights and Path(weights).is_file():
            return self.work / f"{method}-{_hash(Path(weights))[:12]}"
        return self.work / (f"{method}-{Path(weights).name}" if weights else method)

    def _reenacted(self, method: str, name: str, photo: Path, driver: Path) -> Path:
        """Run lift and reenact, without loss, into the work folder; what is there already is used."""
        from fourdface.cli.driving import ReenactRequest, reenact_file
        from fourdface.cli.lifting import lift_file
        from fourdface.cli.writing import FrameTarget

        place = self.place(method) / f"{name}.h5"
        if place.exists():
            return place
        avatar = self.place(method) / "avatars" / f"{photo.stem}.h5"
        avatar.parent.mkdir(parents=True, exist_ok=True)
        if not avatar.exists():
            write_artifact(lift_file(self.lifting(photo, method)), Output(avatar))
        with measured(place):
            request = ReenactRequest(str(driver), str(avatar), network=self.network)
            reenact_file(request, FrameTarget("h5", Output(place), None, False))
        return place

    def baselines(self, source: np.ndarray, truth: Path) -> dict[str, FrameStream]:
        """The baselines that were asked for."""
        from fourdface.stages.baselines import similarity_stream, still_stream

        asked = [name for name in self.options.get("baselines", "none").split(",") if name != "none"]
        out: dict[str, FrameStream] = {}
        for name in asked:
            if name not in ("still", "similarity"):
                raise UsageError(f"--baselines has {name}; there are still, similarity and none")
            if name == "still":
                out[name] = still_stream(source, frame_stream(truth))
            elif self.judges.has("landmarks"):
                out[name] = similarity_stream(source, frame_stream(truth), self.judges, self.protocol.every)
        return out

    def finish(self, clips: Iterable[Clip]) -> None:
        """Measure and write."""
        from fourdface.artifacts import Report
        from fourdface.metrics.registry import build_metrics
        from fourdface.stages.evaluate import evaluate
        from fourdface.stages.report_summary import compared, unmeasured

        factories, left_out = build_metrics(self.protocol.metrics, self.judges, self.protocol.every)
        if not factories:
            raise FourdError("no metric can be measured: " + "; ".join(f"{n}: {why}" for n, why in left_out.items()))
        listed = list(clips)
        shown = progress(listed, total=len(listed), label="eval", unit="clip")
        report = evaluate(shown, factories, self.judges, self.protocol, self._provenance(), left_out)
        for sentence in unmeasured(report):
            log.warning(sentence)
        if self.options.get("compare"):
            earlier = Path(self.options["compare"])
            report = compared(report, Report.read(earlier), earlier.stem)
        self.target.write(report)

    def _provenance(self) -> Provenance:
        from fourdface.artifacts import Provenance

        config = {"protocol": dataclasses.asdict(self.protocol), "judges": self.judges.words}
        return Provenance(command=command_line(), config_json=json.dumps(config), method="eval")


class _Target:
    """Where a report goes: one artifact (NAME.h5, standard output), or a folder with all four forms."""

    def __init__(self, place: str | None, overwrite: bool) -> None:
        from fourdface.cli.stream import check_folder

        self.folder: Path | None = None
        self.overwrite = overwrite
        self.output: Output | None = None
        if place is None or place == "-" or Path(place).suffix:
            self.output = open_output(place, overwrite=overwrite, what="a report artifact", example="report")
            if place not in (None, "-") and Path(str(place)).suffix != ".h5":
                raise UsageError(f"-o {place}: give NAME.h5 for the report alone, or a folder for all its forms")
        else:
            self.folder = Path(place)
            check_folder(self.folder, overwrite=overwrite)

    def write(self, report: Report) -> None:
        """Write, whole or not at all."""
        from fourdface.stages.report_pages import to_csv, to_html, to_json, to_markdown
        from fourdface.stages.report_summary import summarise

        if self.output is not None:
            write_artifact(report, self.output)
        if self.folder is not None:
            with output_folder(self.folder, overwrite=self.overwrite) as folder:
                report.write(folder / "report.h5")
                forms = {"json": to_json, "csv": to_csv, "html": to_html, "md": to_markdown}
                data = summarise(report)
                for suffix, form in forms.items():
                    (folder / f"report.{suffix}").write_text(form(report, data), encoding="utf-8")


def frame_stream(path: Path) -> FrameStream:
    """Pictures of a video, a folder of pictures or a frames artifact; raises FourdError at once for anything else."""
    if not path.exists():
        raise FourdError(f"{path} does not exist; a video, a folder of pictures or a frames artifact is wanted")
    if path.is_file() and _is_artifact(path):
        return _artifact_stream(path)
    return _video_stream(path)


def _artifact_stream(path: Path) -> FrameStream:
    from fourdface.artifacts import Frames
    from fourdface.media.image import decode_png

    frames = Frames.read(path)
    return lambda: (decode_png(blob) for blob in frames.frame_blobs)


def _video_stream(path: Path) -> FrameStream:
    from fourdface.media.video import open_video

    if path.is_dir():
        return _folder_stream(path)
    open_video(path)
    return lambda: (frame.image_u8 for frame in open_video(path))


def _folder_stream(path: Path) -> FrameStream:
    """PNG files keep their transparency; an unreadable picture is an error here, not a frame to skip."""
    from fourdface.media.image import list_images

    files = list_images(path)
    if not files:
        raise FourdError(f"folder {path} holds no pictures (PNG, JPEG, ...)")
    return lambda: (_read(file) for file in files)


def _read(path: Path) -> np.ndarray:
    """[H,W,3], or [H,W,4] where some of it is transparent."""
    from fourdface.media.image import read_image_rgba

    image = read_image_rgba(path)
    return image if (image[..., 3] < 255).any() else image[..., :3]


def _is_artifact(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _result(folder: Path, name: str) -> Path:
    for suffix in (".h5", ".mp4", ".mov", ".mkv", ".webm", ".avi", ""):
        if (folder / f"{name}{suffix}").exists():
            return folder / f"{name}{suffix}"
    raise FourdError(f"{folder} has no result for {name}; expected {name}.mp4, {name}.h5 or a folder {name}")


def _hashes(**paths: str) -> dict[str, str]:
    return {key: _hash(Path(path)) for key, path in paths.items()}


def _hash(path: Path) -> str:
    """SHA-256 of a file, or of the hashes of a folder's files in order."""
    import hashlib

    if path.is_dir():
        from fourdface.media.image import list_images

        digest = hashlib.sha256()
        for file in list_images(path):
            digest.update(f"{Path(file).name} {source_of(Path(file)).sha256}\n".encode())
        return digest.hexdigest()
    return source_of(path).sha256


def _picture(path: str | None) -> np.ndarray | None:
    from fourdface.media.image import read_image

    return None if path is None else read_image(Path(path))


def _judges(choice: str, models: str | None) -> JudgeSet:
    from fourdface.metrics.judges import load_judges
    from fourdface.stages.protocols import configuration, embedded_judges

    folder = Path(models) if models else None
    if choice == "embedded":
        return embedded_judges()
    if choice == "open":
        return load_judges(configuration("judges.yaml"), folder)
    return load_judges(Path(choice), folder)
