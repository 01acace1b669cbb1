"""The html report: what stands in it, and that a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fourdface.artifacts import Provenance, Report
from fourdface.media.image import encode_png
from fourdface.stages.report_pages import MOST_CHARTS, to_csv, to_html, to_markdown

METRICS = ("psnr", "id")
PROBE = """<script>
const seen = {
  images: [...document.images].filter(i => i.complete && i.naturalWidth > 0).length,
  curves: [...document.querySelectorAll('polyline')].filter(p => p.getBoundingClientRect().width > 100).length,
  heat: new Set([...document.querySelectorAll('.map td')].map(c => getComputedStyle(c).backgroundColor)).size,
  wider: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  best: document.querySelectorAll('td.best').length,
};
document.body.setAttribute('data-seen', JSON.stringify(seen));
</script>"""


def report(sequences: int = 2, frames: int = 5) -> Report:
    """Two systems, sequences that are pairs of cameras, one worst frame, hostile names."""
    names = [f"<b>Ann</b> {k // 3:02d}>{k % 3:02d}" for k in range(9)] + [f"clip {k}" for k in range(sequences)]
    rows = [(s, q, f) for s in range(2) for q in range(len(names)) for f in range(1 if q < 9 else frames)]
    columns = np.array(rows)
    values = np.stack([20 + columns @ [1.0, 0.5, 0.3], 0.5 + 0.01 * columns[:, 1]], axis=1)
    measured = np.ones(values.shape, np.uint8)
    measured[3, 1] = 0
    infos = [
        {"name": name, "title": name.upper(), "unit": "dB", "direction": "higher", "formula": "a & b", "source": "x",
         "network": "", "crop": "whole picture", "missing": "left out"}
        for name in METRICS
    ]  # fmt: skip
    manifest = {
        "protocol": {"name": "novel-view"}, "judges": {}, "metrics": infos, "left_out": {"lpips": "no <network>"},
        "systems": ["ours", "<i>theirs</i>"], "sequences": [{"name": name, "hashes": {}} for name in names],
        "captions": [{"system": "ours", "metric": "id", "sequence": "clip 0", "frame": 2}],
    }  # fmt: skip
    return Report(
        provenance=Provenance(), manifest_json=json.dumps(manifest), row_system=columns[:, 0].astype(np.int32),
        row_sequence=columns[:, 1].astype(np.int32), row_frame=columns[:, 2].astype(np.int64), values=values,
        measured=measured, row_angle=10.0 * columns[:, 1],
        picture_blobs=[encode_png(np.full((8, 24, 3), 90, np.uint8))], states={},
    )  # fmt: skip


def test_names_are_text_and_not_markup():
    page = to_html(report())
    assert "<b>Ann</b>" not in page and "<i>theirs</i>" not in page and "<network>" not in page
    assert "&lt;b&gt;Ann&lt;/b&gt;" in page and "ours, clip 0, frame 2: ID 0.59" in page


def test_many_curves_are_folded():
    assert '<details open=""><summary>PSNR' in to_html(report())
    assert "<details><summary>PSNR" in to_html(report(sequences=MOST_CHARTS))


def test_tables_agree():
    made = report()
    rows = [line.split(",") for line in to_csv(made).splitlines()]
    assert rows[0] == ["system", "sequence", *METRICS] and len(rows) == 1 + 2 * 12
    value = float(next(row for row in rows if row[:2] == ["ours", "TOTAL"])[2])
    assert f"{value:.4g}" in to_markdown(made) and f">{value:.4g} " in to_html(made)
    assert "\nours, by sequence:\n" in to_markdown(made) and "\n| clip 1 | 25.6 | 0.6 |\n" in to_markdown(made)
    angles = re.findall(r"<td>(\d+-\d+|over \d+)</td><td>ours</td><td>(\d+)</td>", to_html(made))
    assert angles == [("0-15", "2"), ("15-30", "1"), ("30-45", "2"), ("45-60", "1"), ("60-90", "3"), ("over 90", "10")]


@pytest.mark.browser
def test_a_browser_shows_it(tmp_path: Path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium here")
    page = tmp_path / "report.html"
    page.write_text(to_html(report()).replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--dump-dom",
               "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert seen["images"] == 1 and seen["curves"] == 2 * 2 * 2 and seen["best"] == 2
    assert seen["heat"] >= 8  # the cells of a score matrix differ in colour
    assert seen["wider"] <= 0  # wide tables scroll by themselves, the page does not
