"""A report for people and programs: json, csv and one self-contained html page.

`data` is what `summarise` gives, where the caller has it already.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Sequence
from typing import Any

from ..artifacts import Report
from .report_matrices import matrices
from .report_summary import summarise

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")
CURVE_WIDTH, CURVE_HEIGHT, MARGIN = 560, 110, 58
MOST_CHARTS = 24
"""More diagrams than this are folded away, metric by metric."""
STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;color:#1b1f24}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #d0d7de;padding-bottom:.3rem}
table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.25rem .6rem;border-bottom:1px solid #e5e8eb;text-align:right}
th:first-child,td:first-child{text-align:left}th{background:#f6f8fa;font-weight:600}.best{font-weight:700}
.ci{color:#656d76;font-size:.85em}.wrap{overflow-x:auto}.rows{font-size:.85em}.rows td,.rows th{padding:.2rem .45rem}
.rows td:nth-child(2),.rows th:nth-child(2),.words td,.words th{text-align:left}.words{font-size:.85em;width:100%}
.cameras td:nth-child(-n+3),.cameras th:nth-child(-n+3){text-align:left}
.words td{vertical-align:top}.rows td:first-child{position:sticky;left:0;background:#fff}
summary{cursor:pointer;padding:.3rem 0;font-weight:600}
pre{overflow-x:auto;font-size:.8em;background:#fbfcfd;padding:.6rem}
svg text{font-size:10px;fill:#656d76}svg line{stroke:#e5e8eb}figure{display:inline-block;margin:.4rem .8rem .4rem 0}
figcaption{font-size:.85em;color:#656d76}svg{background:#fbfcfd;border:1px solid #e5e8eb}code{font-size:.9em}
.map td,.map th{padding:.15rem .4rem;text-align:center;font-size:.85em}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(560px,1fr));gap:.6rem}
"""


def to_json(report: Report, data: dict[str, Any] | None = None) -> str:
    """The whole report as JSON: settings, totals, sequences, frames."""
    return json.dumps(data or summarise(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(report: Report, data: dict[str, Any] | None = None) -> str:
    """One row a system and sequence and one for the total; columns are metrics."""
    data = data or summarise(report)
    names = [info["name"] for info in data["metrics"]]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["system", "sequence", *names])
    for system in data["systems"]:
        for sequence, values in data["by_sequence"][system].items():
            writer.writerow([system, sequence, *(_cell(values.get(name)) for name in names)])
        writer.writerow([system, "TOTAL", *(_cell(data["totals"][system][name]["value"]) for name in names)])
    return out.getvalue()


def to_markdown(report: Report, data: dict[str, Any] | None = None) -> str:
    """Totals (a row a metric, a column a system), then tables by angle and by sequence, as Markdown."""
    data = data or summarise(report)
    lines = ["| metric | " + " | ".join(data["systems"]) + " |", "|---" * (len(data["systems"]) + 1) + "|"]
    for info in data["metrics"]:
        cells = [_number(data["totals"][system][info["name"]]["value"]) for system in data["systems"]]
        arrow = "up" if info["direction"] == "higher" else "down"
        lines.append(f"| {info['title']} [{info['unit']}], better {arrow} | " + " | ".join(cells) + " |")
    for key, label in (("by_angle", "angle [degrees]"), ("by_sequence", "sequence")):
        names = ["frames"] * (key == "by_angle") + [info["name"] for info in data["metrics"]]
        for system in data["systems"] if data[key] else []:
            lines += [
                "",
                f"{system}, by {label}:",
                "",
                f"| {label} | " + " | ".join(names) + " |",
                "|---" * (len(names) + 1) + "|",
            ]
            for name, row in data[key].get(system, {}).items():
                lines.append(f"| {name} | " + " | ".join(_number(row.get(n)) for n in names) + " |")
    return "\n".join(lines) + "\n"


def to_html(report: Report, data: dict[str, Any] | None = None) -> str:
    """One page without any outside file: totals, sequences, curves, worst frames, settings."""
    data = data or summarise(report)
    title = f"fourd eval: {data['protocol']['name']}"
    parts = [f"<h1>{html.escape(title)}</h1>", _lead(data), "<h2>Totals</h2>", _totals(data)]
    if data["by_angle"]:
        parts += ["<h2>By angle between source and view [degrees]</h2>", _rows_of(data, "by_angle", "angle")]
    parts += ["<h2>By sequence</h2>", _rows_of(data, "by_sequence", "sequence")]
    if data["matrices"]:
        parts += ["<h2>From camera to camera</h2>", matrices(data)]
    curves = _curves(data)
    if curves:
        parts += ["<h2>Frame by frame</h2>", _legend(data["systems"]), curves]
    if data["captions"]:
        note = "<p>Photo (where there is one), truth and result side by side.</p>"
        parts += ["<h2>Worst frames</h2>", note, _pictures(data, report)]
    parts += ["<h2>Metrics</h2>", _definitions(data), "<h2>Settings and inputs</h2>", _settings(data, report)]
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
    return f"{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"


def _lead(data: dict[str, Any]) -> str:
    frames, sequences = len(data["frames"]), len(data["sequences"])
    counts = [(len(data["systems"]), "system"), (sequences, "sequence"), (frames, "judged frame")]
    text = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts) + "."
    if data["left_out"]:
        rows = "".join(f"<li>{html.escape(name)}: {html.escape(why)}</li>" for name, why in data["left_out"].items())
        text += f" Metrics that could not be measured:<ul>{rows}</ul>"
    return f"<p>{text}</p>"


def _best(data: dict[str, Any], info: dict[str, Any]) -> float | None:
    values = [data["totals"][s][info["name"]]["value"] for s in data["systems"]]
    numbers = [v for v in values if v is not None]
    if len(numbers) < 2:
        return None
    return max(numbers) if info["direction"] == "higher" else min(numbers)


def _totals(data: dict[str, Any]) -> str:
    head = "".join(f"<th>{html.escape(system)}</th>" for system in data["systems"])
    rows = []
    for info in data["metrics"]:
        best = _best(data, info)
        cells = []
        for system in data["systems"]:
            entry = data["totals"][system][info["name"]]
            mark = ' class="best"' if best is not None and entry["value"] == best else ""
            interval = ""
            if entry["low"] is not None:
                interval = f' <span class="ci">[{_number(entry["low"])}, {_number(entry["high"])}]</span>'
            if entry["coverage"] is not None and entry["coverage"] < 1:
                interval += f' <span class="ci">{100 * entry["coverage"]:.1f} % of frames</span>'
            cells.append(f"<td{mark}>{_number(entry['value'])}{interval}</td>")
        arrow = "&uarr;" if info["direction"] == "higher" else "&darr;"
        label = f"{html.escape(info['title'])} {arrow} <span class='ci'>{html.escape(info['unit'])}</span>"
        rows.append(f"<tr><td>{label}</td>{''.join(cells)}</tr>")
    note = "<p class='ci'>Means over sequences of means over frames; 95 % bootstrap intervals over sequences.</p>"
    return f"<div class='wrap'><table><tr><th>metric</th>{head}</tr>{''.join(rows)}</table></div>{note}"


def _rows_of(data: dict[str, Any], key: str, label: str) -> str:
    names = ["frames"] * (key == "by_angle") + [info["name"] for info in data["metrics"]]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = []
    for system in data["systems"]:
        for sequence, values in data[key][system].items():
            cells = "".join(f"<td>{_number(values.get(name))}</td>" for name in names)
            rows.append(f"<tr><td>{html.escape(sequence)}</td><td>{html.escape(system)}</td>{cells}</tr>")
    head = f"<tr><th>{label}</th><th>system</th>{head}</tr>"
    return f"<div class='wrap'><table class='rows'>{head}{''.join(rows)}</table></div>"


def _legend(systems: Sequence[str]) -> str:
    entries = [
        f'<span style="color:{COLOURS[k % len(COLOURS)]}">&#9632;</span> {html.escape(system)}'
        for k, system in enumerate(systems)
    ]
    return f"<p>{' &nbsp; '.join(entries)}</p>"


def _curves(data: dict[str, Any]) -> str:
    """One small diagram a metric and sequence; those of several sequences by metric, folded where they are many.

    "" where no sequence has more than one frame.
    """
    lines: dict[str, dict[str, dict[str, list[tuple[int, float]]]]] = {}
    for row in data["frames"]:
        for info in data["metrics"]:
            if info["name"] in row:
                curves = lines.setdefault(info["name"], {}).setdefault(row["sequence"], {})
                curves.setdefault(row["system"], []).append((row["frame"], row[info["name"]]))
    shown = ' open=""' if sum(map(len, lines.values())) <= MOST_CHARTS else ""
    single = len(data["sequences"]) == 1
    parts: list[str] = []
    alone: list[str] = []
    for info in data["metrics"]:
        title = f"{html.escape(info['title'])} <span class='ci'>{html.escape(info['unit'])}</span>"
        charts = [
            _chart(title if single else html.escape(sequence), [curves.get(s, []) for s in data["systems"]])
            for sequence, curves in lines.get(info["name"], {}).items()
            if any(len(points) > 1 for points in curves.values())
        ]
        if single:
            alone += charts
        elif charts:
            grid = f"<div class='grid'>{''.join(charts)}</div>"
            parts.append(f"<details{shown}><summary>{title}</summary>{grid}</details>")
    if alone:
        return f"<div class='grid'>{''.join(alone)}</div>"
    return "".join(parts)


def _chart(title: str, lines: Sequence[Sequence[tuple[int, float]]]) -> str:
    """Curves of one metric and sequence; `title` is HTML."""
    points = [point for line in lines for point in line]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    across, up = max(right - left, 1), (high - low) or 1.0

    def place(point: tuple[int, float]) -> str:
        x = MARGIN + (point[0] - left) / across * (CURVE_WIDTH - MARGIN - 6)
        y = CURVE_HEIGHT - 6 - (point[1] - low) / up * (CURVE_HEIGHT - 12)
        return f"{x:.1f},{y:.1f}"

    drawn = "".join(
        f'<polyline fill="none" stroke="{COLOURS[k % len(COLOURS)]}" stroke-width="1.3" '
        f'points="{" ".join(place(point) for point in line)}"/>'
        for k, line in enumerate(lines)
        if line
    )
    scale = "".join(
        f'<text x="4" y="{row + 3:g}">{_number(value)}</text>'
        f'<line x1="{MARGIN}" x2="{CURVE_WIDTH}" y1="{row:g}" y2="{row:g}"/>'
        for value, row in ((high, 7.0), ((low + high) / 2, CURVE_HEIGHT / 2), (low, CURVE_HEIGHT - 6.0))
        if low < high or row > CURVE_HEIGHT / 2
    )
    size = f'width="{CURVE_WIDTH}" height="{CURVE_HEIGHT}"'
    caption = f"{title}, frames {left} to {right}"
    return f"<figure><svg {size}>{scale}{drawn}</svg><figcaption>{caption}</figcaption></figure>"


def _pictures(data: dict[str, Any], report: Report) -> str:
    rows = {(row["system"], row["sequence"], row["frame"]): row for row in data["frames"]}
    titles = {info["name"]: info["title"] for info in data["metrics"]}
    figures = []
    for caption, blob in zip(data["captions"], report.picture_blobs, strict=True):
        key, metric = (caption["system"], caption["sequence"], caption["frame"]), caption["metric"]
        words = f"{key[0]}, {key[1]}, frame {key[2]}: {titles[metric]} {_number(rows[key].get(metric))}"
        picture = base64.b64encode(blob).decode()
        figures.append(
            f'<figure><img alt="{html.escape(words)}" src="data:image/png;base64,{picture}">'
            f"<figcaption>{html.escape(words)}</figcaption></figure>"
        )
    return "".join(figures)


def _definitions(data: dict[str, Any]) -> str:
    heads = ("name", "formula", "source", "network", "crop", "where it cannot be measured")
    rows = [
        [info["name"], info["formula"], info["source"], info["network"] or "none", info["crop"], info["missing"]]
        for info in data["metrics"]
    ]
    head = "".join(f"<th>{word}</th>" for word in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='wrap'><table class='words'><tr>{head}</tr>{body}</table></div>"


def _settings(data: dict[str, Any], report: Report) -> str:
    kept = {key: data[key] for key in ("protocol", "judges", "sequences")}
    kept["fourd_version"] = report.provenance.fourd_version
    kept["command"] = report.provenance.command
    text = html.escape(json.dumps(kept, indent=1, ensure_ascii=False))
    return f"<details><summary>Protocol, judges, inputs with SHA-256, command</summary><pre>{text}</pre></details>"
