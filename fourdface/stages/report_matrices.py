"""Score matrices of a report as heat maps, with the scores that Coherent3D makes of them."""

from __future__ import annotations

import html
from typing import Any

COLOURS = ((253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84))
"""Colours from the best to the worst cell of a map: viridis at its quarters."""


def matrices(data: dict[str, Any]) -> str:
    """The scores of every system, metric and subject in one table, and a heat map of each."""
    infos = {info["name"]: info for info in data["metrics"]}
    rows, maps = [], []
    for system, metrics in data["matrices"].items():
        for name, subjects in metrics.items():
            for subject, entry in subjects.items():
                words = [html.escape(text) for text in (subject, system, infos[name]["title"])]
                cells = [_cell(entry[key]) for key in ("synthesis", "novel_view", "nvv", "ivv")]
                rows.append("".join(f"<td>{cell}</td>" for cell in (*words, *cells)))
                maps.append(_map(f"{subject}, {system}: {infos[name]['title']}", entry, infos[name]["direction"]))
    heads = ("subject", "system", "metric", "synthesis (eq. 12)", "novel view (13)", "NVV (14)", "IVV (15)")
    head = "".join(f"<th>{word}</th>" for word in heads)
    table = f"<table class='cameras'><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    note = "<p class='ci'>Rows: input camera; columns: output camera. Yellow is best. Means over frames.</p>"
    return f"<div class='wrap'>{table}</div>{note}<div>{''.join(maps)}</div>"


def _map(title: str, entry: dict[str, Any], direction: str) -> str:
    numbers = [value for row in entry["scores"] for value in row if value is not None]
    low, high = min(numbers), max(numbers)
    best, worst = (high, low) if direction == "higher" else (low, high)
    head = "".join(f"<th>{camera}</th>" for camera in entry["cameras"])
    rows = []
    for camera, row in zip(entry["cameras"], entry["scores"], strict=True):
        cells = "".join(_coloured(value, best, worst) for value in row)
        rows.append(f"<tr><th>{camera}</th>{cells}</tr>")
    table = f"<table class='map'><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    return f"<figure>{table}<figcaption>{html.escape(title)}</figcaption></figure>"


def _coloured(value: float | None, best: float, worst: float) -> str:
    if value is None:
        return "<td>n/a</td>"
    part = 0.0 if best == worst else (value - best) / (worst - best)
    steps = len(COLOURS) - 1
    left = min(int(part * steps), steps - 1)
    mix = part * steps - left
    red, green, blue = (round(a + mix * (b - a)) for a, b in zip(COLOURS[left], COLOURS[left + 1], strict=True))
    ink = "#fff" if part > 0.4 else "#1b1f24"
    return f'<td style="background:rgb({red},{green},{blue});color:{ink}">{_cell(value)}</td>'


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"
