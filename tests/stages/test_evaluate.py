"""The evaluation of pictures in memory: threads change nothing, angles by frame, errors from any thread."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fourdface.artifacts import Provenance, Report
from fourdface.errors import FourdError
from fourdface.metrics import Cost
from fourdface.metrics.judges import JudgeSet
from fourdface.metrics.registry import build_metrics
from fourdface.stages.evaluate import Clip, Protocol, evaluate
from fourdface.stages.report_summary import merge_reports, summarise

METRICS = ("psnr", "ssim", "pose", "id", "flicker_pose", "flicker_pixels", "kd", "seconds", "memory")


def judges() -> JudgeSet:
    """Judges that read a picture's brightness as everything; dark pictures have no face."""

    def read(picture) -> np.ndarray | None:
        mean = float(picture.image_u8.mean())
        return None if mean < 20 else np.array([mean, mean / 2, 1.0])

    def features(picture) -> list[np.ndarray]:
        return [picture.image_u8[None].transpose(0, 3, 1, 2).astype(np.float64)]

    readers = dict.fromkeys(("box", "landmarks", "pose", "identity"), read) | {"features": features}
    return JudgeSet(readers=readers, words=dict.fromkeys(("detector", *readers), "w"))


def stream(levels: list[int], seed: int = 0) -> Iterator[np.ndarray]:
    """Grey pictures of these levels with some noise."""
    generator = np.random.default_rng(seed)
    for level in levels:
        yield np.clip(level + generator.integers(-9, 9, (24, 32, 3)), 0, 255).astype(np.uint8)


def clip(name: str, levels: list[int], **more: object) -> Clip:
    results = {system: partial(stream, levels, seed) for seed, system in enumerate(("ours", "theirs"), 1)}
    return Clip(name, results, partial(stream, levels), next(stream([100])), **more)


def run(clips: list[Clip], threads: int = 1) -> Report:
    factories, left_out = build_metrics(METRICS, judges())
    assert not left_out
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = evaluate(clips, factories, judges(), Protocol(metrics=METRICS), Provenance())
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    return out


CLIPS = [clip("a", [100, 110, 120, 135, 140, 10, 152]), clip("b", [60, 170]), clip("c", [90] * 12)]


def test_any_number_of_threads_gives_the_same_report(tmp_path):
    whole = summarise(run(CLIPS))
    for threads in (2, 5):
        assert summarise(run(CLIPS, threads)) == whole
    assert len(whole["frames"]) == 2 * 21 and whole["totals"]["ours"]["pose"]["coverage"] == pytest.approx(20 / 21)
    flicker = [row["frame"] for row in whole["frames"] if row["system"] == "ours" and "flicker_pose" in row]
    assert flicker == [2, 3, 4, *range(2, 12)]  # not where a face is missing among three


def test_tables_by_the_turn_of_the_head():
    """Portrait4D's Table 1: frames go into bins by |yaw of the truth - yaw of the photo|, here the brightness."""
    data = summarise(run(CLIPS))
    table = data["by_angle"]["ours"]
    frames = {"0-15": 14, "15-30": 1, "30-45": 3, "45-60": 1, "60-90": 1}
    assert {name: row["frames"] for name, row in table.items()} == frames
    known = {(row["sequence"], row["frame"]): row["psnr"] for row in data["frames"] if row["system"] == "ours"}
    assert table["15-30"]["psnr"] == known["a", 2]
    assert table["30-45"]["psnr"] == pytest.approx(((known["a", 3] + known["a", 4]) / 2 + known["b", 0]) / 2)
    fixed = summarise(run([clip("a", [100, 160], angle=50.0)]))  # cameras know better
    assert {name: row["frames"] for name, row in fixed["by_angle"]["ours"].items()} == {"45-60": 2}
    parts = [run([part]) for part in CLIPS]
    assert summarise(merge_reports(parts, Provenance()))["by_angle"] == data["by_angle"]


def test_costs_of_systems():
    data = summarise(run([clip("a", [100, 100], costs={"ours": Cost(0.5, 900.0)})]))
    assert data["totals"]["ours"]["seconds"]["value"] == 0.5 and data["totals"]["ours"]["memory"]["value"] == 900.0
    assert data["totals"]["theirs"]["memory"]["value"] is None


def test_memory_of_a_block_is_its_own_peak(tmp_path):
    from fourdface.cli.evaluating_extras import measured

    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is measured on Linux alone")
    peaks = []
    for size in (200, 1):
        with measured(tmp_path / f"{size}.h5"):
            np.ones(size << 17).sum()  # MiB of float64
        peaks.append(json.loads((tmp_path / f"{size}.cost.json").read_text())["memory"])
    assert peaks[0] - peaks[1] > 150


@pytest.mark.parametrize("threads", [1, 3])
def test_errors_reach_the_caller(threads):
    def broken() -> Iterator[np.ndarray]:
        yield from stream([100, 100, 100])
        raise FourdError("frame 3 is damaged")

    with pytest.raises(FourdError, match="frame 3 is damaged"):
        run([Clip("a", {"ours": broken}, partial(stream, [100] * 5))], threads)
    with pytest.raises(FourdError, match="ours ends after 3 frames and the truth goes on"):
        run([Clip("a", {"ours": partial(stream, [100] * 3)}, partial(stream, [100] * 5))], threads)


DAMAGED_NOTES = [
    "", "{", "[" * 9999, "[1, 2]", "{}", '{"seconds": "long", "memory": 1}', '{"seconds": -1, "memory": 1}',
    '{"seconds": 1, "memory": NaN}', '{"seconds": 1' + "0" * 400 + ', "memory": null}', '{"seconds": 1}', "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("note", DAMAGED_NOTES)
def test_a_damaged_note_of_costs_is_one_sentence(tmp_path, note):
    from fourdface.cli.evaluating_extras import cost_of

    (tmp_path / "clip.cost.json").write_bytes(note.encode("utf-8", "surrogatepass"))
    with pytest.raises(FourdError, match=r"clip\.cost\.json is damaged: .*delete both files") as raised:
        cost_of(tmp_path / "clip.h5")
    assert "\n" not in str(raised.value)


def test_a_note_of_costs(tmp_path):
    from fourdface.cli.evaluating_extras import cost_of
    from support.artifacts import make_frames

    place = tmp_path / "clip.h5"
    make_frames(4).write(place)
    assert cost_of(place) == Cost()
    for memory in (900.5, None):
        (tmp_path / "clip.cost.json").write_text(json.dumps({"seconds": 2, "memory": memory}))
        assert cost_of(place) == Cost(0.5, memory)
