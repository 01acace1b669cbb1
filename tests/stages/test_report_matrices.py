"""Score matrices in a report: from hand-made rows to the numbers of Coherent3D's equations and to heat maps."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fourdface.artifacts import Provenance, Report
from fourdface.stages.report_pages import to_html, to_json
from fourdface.stages.report_summary import matrices_of, summarise

INFO = {"name": "psnr", "title": "PSNR", "unit": "dB", "direction": "higher", "formula": "", "source": "",
        "network": "", "crop": "whole picture", "missing": ""}  # fmt: skip
SCORES = np.array([[30.0, 20.0, 10.0], [22.0, 31.0, 16.0], [12.0, 14.0, 32.0]])
"""Scores of the first frame; the second has 1 more everywhere."""
CAMERAS = (2, 5, 11)


def report(skipped: set[tuple[int, int]] = frozenset(), inputs: tuple[int, ...] = (0, 1, 2)) -> Report:
    pairs = [(i, j) for i in inputs for j in range(3)]
    sequences = [{"name": f"Ann B {CAMERAS[i]:02d}>{CAMERAS[j]:02d}", "hashes": {}} for i, j in pairs]
    sequences.append({"name": "a clip", "hashes": {}})
    rows, values, measured = [], [], []
    for number, (i, j) in enumerate([*pairs, (0, 0)]):
        for frame in (0, 4):
            rows.append((0, number, frame))
            values.append(SCORES[i, j] + (frame > 0))
            measured.append((i, j) not in skipped)
    manifest = {"protocol": {"name": "novel-view"}, "judges": {}, "metrics": [INFO], "left_out": {},
                "systems": ["ours"], "sequences": sequences, "captions": []}  # fmt: skip
    columns = np.array(rows)
    return Report(
        provenance=Provenance(), manifest_json=json.dumps(manifest), row_system=columns[:, 0].astype(np.int32),
        row_sequence=columns[:, 1].astype(np.int32), row_frame=columns[:, 2].astype(np.int64),
        values=np.array(values)[:, None], measured=np.array(measured, np.uint8)[:, None], picture_blobs=[], states={},
    )  # fmt: skip


def test_scores_by_hand():
    entry = matrices_of(report())["ours"]["psnr"]["Ann B"]
    assert entry["cameras"] == list(CAMERAS)
    assert np.allclose(entry["scores"], SCORES + 0.5)
    assert entry["synthesis"] == pytest.approx(187 / 9 + 0.5)
    assert entry["novel_view"] == pytest.approx(94 / 6 + 0.5)
    assert entry["nvv"] == pytest.approx(np.mean([math.sqrt(200 / 3), math.sqrt(114 / 3), np.std([12, 14, 32])]))
    assert entry["ivv"] == pytest.approx(np.mean([np.std(SCORES[:, j]) for j in range(3)]))


def test_pairs_that_were_not_measured_are_left_out():
    entry = matrices_of(report({(0, 2)}))["ours"]["psnr"]["Ann B"]
    assert entry["scores"][0][2] is None
    assert entry["novel_view"] == pytest.approx(84 / 5 + 0.5)


def test_one_input_camera_makes_no_matrix():
    assert matrices_of(report(inputs=(1,))) == {}
    assert "From camera to camera" not in to_html(report(inputs=(1,)))


def test_json_and_page_show_them():
    data = json.loads(to_json(report()))
    assert data["matrices"] == json.loads(json.dumps(summarise(report())["matrices"]))
    page = to_html(report())
    assert "From camera to camera" in page and page.count("rgb(253,231,37)") == 1  # one best cell
    assert page.count('<td style="background') == 9 and "Ann B, ours: PSNR" in page
