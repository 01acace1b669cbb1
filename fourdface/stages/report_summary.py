"""What a report says in all: totals with confidence intervals and coverage, tables by sequence; merging of shards."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..artifacts import Provenance, Report
from ..errors import FourdError, UsageError
from ..metrics.base import Metric, bootstrap_interval, mean_of, sequence_means
from ..metrics.matrix import matrix_scores
from ..metrics.registry import set_metric

_PAIR = re.compile(r"(.+) (\d+)>(\d+)")
"""Sequence of `fourd eval novel-view`: subject, input camera, output camera."""

ANGLES = (0, 15, 30, 45, 60, 90)
"""Lower ends, in degrees, of the bins of tables by angle."""


def summarise(report: Report) -> dict[str, Any]:
    """Everything of a report as plain data, in the order of systems, metrics and sequences; NaN becomes None.

    Keys: protocol, judges, metrics, left_out, systems, sequences (with hashes), totals (system -> metric -> value, low,
    high, coverage), by_sequence (system -> sequence -> metric -> value), by_angle (system -> degrees -> metric -> mean,
    and the number of frames; where angles are known), matrices (see `matrices_of`), frames (a row a judged frame).
    """
    manifest = manifest_of(report)
    names = [entry["name"] for entry in manifest["sequences"]]
    totals: dict[str, dict[str, dict[str, Any]]] = {}
    by_sequence: dict[str, dict[str, dict[str, float | None]]] = {}
    for s, system in enumerate(manifest["systems"]):
        mine = report.row_system == s
        totals[system] = {}
        by_sequence[system] = {name: {} for name in names}
        for m, info in enumerate(manifest["metrics"]):
            whole = _set_metric(report, system, info)
            if whole is not None:
                means = whole.sequence_values()
                low, high = bootstrap_interval(list(means.values()))
                totals[system][info["name"]] = {
                    "value": _plain(whole.compute()), "low": _plain(low), "high": _plain(high), "coverage": None,
                }  # fmt: skip
                for name, value in means.items():
                    by_sequence[system][name][info["name"]] = _plain(value)
                continue
            means = sequence_means(_column(report, mine, m, names))
            low, high = bootstrap_interval(list(means.values()))
            totals[system][info["name"]] = {
                "value": _plain(mean_of(list(means.values()))), "low": _plain(low), "high": _plain(high),
                "coverage": _plain(float(report.measured[mine, m].mean()) if mine.any() else math.nan),
            }  # fmt: skip
            for name, value in means.items():
                by_sequence[system][name][info["name"]] = _plain(value)
    tables = {"totals": totals, "by_sequence": by_sequence, "by_angle": _by_angle(report, manifest)}
    return {**manifest, **tables, "matrices": matrices_of(report), "frames": _frames(report, manifest)}


def _by_angle(report: Report, manifest: dict[str, Any]) -> dict[str, dict[str, dict[str, float | None]]]:
    """system -> bin of the angle between photo and truth (as Portrait4D's Table 1) -> metric -> mean, as totals are."""
    angles = _angles([report])
    names = [entry["name"] for entry in manifest["sequences"]]
    out: dict[str, dict[str, dict[str, float | None]]] = {}
    for s, system in enumerate(manifest["systems"]):
        for low, high in zip(ANGLES, (*ANGLES[1:], math.inf), strict=True):
            inside = (report.row_system == s) & (angles >= low) & (angles < high)
            if inside.any():
                label = f"{low}-{high}" if math.isfinite(high) else f"over {low}"
                columns = (_column(report, inside, m, names) for m in range(len(manifest["metrics"])))
                means = [mean_of(list(sequence_means(column).values())) for column in columns]
                pairs = zip(manifest["metrics"], means, strict=True)
                row = {"frames": float(inside.sum())} | {info["name"]: _plain(value) for info, value in pairs}
                out.setdefault(system, {})[label] = row
    return out


def manifest_of(report: Report) -> dict[str, Any]:
    """The manifest of a report; raises FourdError where it is not what an evaluation writes."""
    try:
        manifest: dict[str, Any] = json.loads(report.manifest_json)
        names = ("protocol", "judges", "metrics", "left_out", "systems", "sequences", "captions")
        missing = [name for name in names if name not in manifest]
    except (ValueError, TypeError) as error:
        raise FourdError("the report's manifest is not the JSON that `fourd eval` writes") from error
    if missing:
        raise FourdError(f"the report's manifest lacks {', '.join(missing)}; run `fourd eval` again")
    return manifest


def unmeasured(report: Report) -> list[str]:
    """A sentence for each system whose faces were not read in a tenth of the frames or more: totals hide that."""
    manifest = manifest_of(report)
    out = []
    for s, system in enumerate(manifest["systems"]):
        measured = report.measured[report.row_system == s]
        shares = {
            info["name"]: float(measured[:, m].mean())
            for m, info in enumerate(manifest["metrics"])
            if info["network"] and len(measured) and set_metric(info["name"], "") is None
        }
        low = [f"{name} in {share:.0%}" for name, share in shares.items() if share < 0.9]
        if low:
            out.append(
                f"{system}: not every frame could be measured (no face was found, say): {', '.join(low)} of them"
            )
    return out


def matrices_of(report: Report) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Score matrices of Coherent3D (eqs. 11-15) of the sequences `SUBJECT II>JJ`: system -> metric -> subject -> entry.

    An entry has cameras (numbers, rows and columns alike), scores (mean over frames, a row an input camera, None where
    not measured) and synthesis, novel_view, nvv, ivv (`metrics.matrix`). Only subjects that were judged from more than
    one input camera have one.
    """
    manifest = manifest_of(report)
    subjects: dict[str, dict[tuple[int, int], int]] = {}
    for number, entry in enumerate(manifest["sequences"]):
        match = _PAIR.fullmatch(entry["name"])
        if match:
            subjects.setdefault(match[1], {})[int(match[2]), int(match[3])] = number
    subjects = {name: pairs for name, pairs in subjects.items() if len({i for i, _ in pairs}) > 1}
    out: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for s, system in enumerate(manifest["systems"]):
        for m, info in enumerate(manifest["metrics"]):
            for subject, pairs in subjects.items():
                cube, cameras = _cube(report, s, m, pairs)
                if np.isfinite(cube).any():
                    out.setdefault(system, {}).setdefault(info["name"], {})[subject] = _matrix(cube, cameras)
    return out


def _cube(report: Report, system: int, metric: int, pairs: dict[tuple[int, int], int]) -> tuple[np.ndarray, list[int]]:
    """Scores [T,N,N] of a system and subject by frame, input and output camera, NaN where not measured."""
    cameras = sorted({camera for pair in pairs for camera in pair})
    mine = (report.row_system == system) & np.isin(report.row_sequence, list(pairs.values()))
    frames = np.unique(report.row_frame[mine])
    place = {number: (cameras.index(i), cameras.index(j)) for (i, j), number in pairs.items()}
    cube = np.full((len(frames), len(cameras), len(cameras)), np.nan)
    for row in np.flatnonzero(mine & (report.measured[:, metric] == 1)):
        i, j = place[int(report.row_sequence[row])]
        cube[np.searchsorted(frames, report.row_frame[row]), i, j] = report.values[row, metric]
    return cube, cameras


def _matrix(cube: np.ndarray, cameras: list[int]) -> dict[str, Any]:
    scores = matrix_scores(cube)
    cells = [[_plain(mean_of(cube[:, i, j].tolist())) for j in range(len(cameras))] for i in range(len(cameras))]
    return {
        "cameras": cameras,
        "scores": cells,
        "synthesis": _plain(scores.synthesis),
        "novel_view": _plain(scores.novel_view),
        "nvv": _plain(scores.novel_view_variation),
        "ivv": _plain(scores.input_view_variation),
    }


def _column(report: Report, rows: np.ndarray, column: int, names: list[str]) -> dict[tuple[str, int], float]:
    kept = np.flatnonzero(rows)
    return {
        (names[report.row_sequence[r]], int(report.row_frame[r])): float(report.values[r, column])
        if report.measured[r, column]
        else math.nan
        for r in kept
    }


def _set_metric(report: Report, system: str, info: dict[str, Any]) -> Metric | None:
    """A metric of whole sets or sequences as its state in the report has it, None for other metrics."""
    metric = set_metric(info["name"], info["network"])
    state = _state(report, system, info["name"])
    if metric is not None and state:
        metric.load_state(state)
    return metric


def _state(report: Report, system: str, name: str) -> dict[str, np.ndarray]:
    prefix = f"{system}.{name}."
    return {key[len(prefix) :]: value for key, value in report.states.items() if key.startswith(prefix)}


def _plain(value: float) -> float | None:
    return None if not math.isfinite(value) else value


def _frames(report: Report, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    names = [info["name"] for info in manifest["metrics"]]
    return [
        {
            "system": manifest["systems"][report.row_system[r]],
            "sequence": manifest["sequences"][report.row_sequence[r]]["name"],
            "frame": int(report.row_frame[r]),
            **{name: float(report.values[r, m]) for m, name in enumerate(names) if report.measured[r, m]},
        }
        for r in range(len(report.row_frame))
    ]


def merge_reports(reports: Sequence[Report], provenance: Provenance) -> Report:
    """Join reports of parts (shards) into the report of the whole, equal to one made in a single run.

    Raises UsageError where protocols, judges, metrics or systems differ, or a sequence is in two parts.
    """
    manifests = [manifest_of(report) for report in reports]
    first = manifests[0]
    for other in manifests[1:]:
        for key in ("protocol", "judges", "metrics", "left_out", "systems"):
            if other[key] != first[key]:
                raise UsageError(f"the reports differ in {key}; only parts of one evaluation can be merged")
    sequences = sorted((entry for m in manifests for entry in m["sequences"]), key=lambda entry: str(entry["name"]))
    names = [entry["name"] for entry in sequences]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"the sequence {twice[0]} is in two of the reports; give each part once")
    rows = np.concatenate([_rows(report, m, names) for report, m in zip(reports, manifests, strict=True)])
    order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
    pictures = [
        (caption, blob)
        for report, m in zip(reports, manifests, strict=True)
        for caption, blob in zip(m["captions"], report.picture_blobs, strict=True)
    ]
    values = np.concatenate([report.values for report in reports])[order]
    measured = np.concatenate([report.measured for report in reports])[order]
    pictures = _worst(pictures, rows[order], values, {**first, "sequences": sequences})
    manifest = {**first, "sequences": sequences, "captions": [caption for caption, _ in pictures]}
    return Report(
        provenance=provenance, manifest_json=json.dumps(manifest, ensure_ascii=False),
        row_system=rows[order, 0].astype(np.int32), row_sequence=rows[order, 1].astype(np.int32),
        row_frame=rows[order, 2].copy(), row_angle=_angles(reports)[order], values=values, measured=measured,
        picture_blobs=[blob for _, blob in pictures], states=_merged_states(reports, first),
    )  # fmt: skip


def _angles(reports: Sequence[Report]) -> np.ndarray:
    """Angles of all rows, -1 where unknown."""
    return np.concatenate([np.full(len(r.row_frame), -1.0) if r.row_angle is None else r.row_angle for r in reports])


def _rows(report: Report, manifest: dict[str, Any], names: list[str]) -> np.ndarray:
    """System, sequence (in the merged order) and frame of each row, [F,3]."""
    places = np.array([names.index(entry["name"]) for entry in manifest["sequences"]], np.int64)
    return np.stack([report.row_system.astype(np.int64), places[report.row_sequence], report.row_frame], axis=1)


def _worst(
    pictures: list[tuple[dict[str, Any], bytes]], rows: np.ndarray, values: np.ndarray, manifest: dict[str, Any]
) -> list[tuple[dict[str, Any], bytes]]:
    """The worst frames of the whole, as one run would have kept them."""
    from .evaluate import WORST

    metrics = [info["name"] for info in manifest["metrics"]]
    names = [entry["name"] for entry in manifest["sequences"]]
    place = {tuple(row): k for k, row in enumerate(rows.tolist())}

    def badness(caption: dict[str, Any]) -> tuple[float, str, int]:
        column = metrics.index(caption["metric"])
        key = (manifest["systems"].index(caption["system"]), names.index(caption["sequence"]), caption["frame"])
        sign = 1 if manifest["metrics"][column]["direction"] == "lower" else -1
        return sign * float(values[place[key], column]), caption["sequence"], caption["frame"]

    groups: dict[tuple[str, str], list[tuple[dict[str, Any], bytes]]] = {}
    for caption, blob in pictures:
        groups.setdefault((caption["system"], caption["metric"]), []).append((caption, blob))
    kept = []
    for key in sorted(groups, key=lambda key: (manifest["systems"].index(key[0]), key[1])):
        kept += sorted(groups[key], key=lambda item: badness(item[0]), reverse=True)[:WORST]
    return kept


def _merged_states(reports: Sequence[Report], manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for system in manifest["systems"]:
        for info in manifest["metrics"]:
            total = set_metric(info["name"], info["network"])
            for report in reports:
                part = set_metric(info["name"], info["network"])
                state = _state(report, system, info["name"])
                if total is not None and part is not None and state:
                    part.load_state(state)
                    total.merge(part)
            if total is not None:
                out |= {f"{system}.{info['name']}.{key}": value for key, value in total.state().items()}
    return out


def compared(report: Report, earlier: Report, name: str) -> Report:
    """The report with the systems of an earlier one beside its own, called `name:SYSTEM`.

    Raises UsageError where protocol, judges, metrics or sequences (names, hashes of the truth) differ.
    """
    mine, other = manifest_of(report), manifest_of(earlier)
    for key in ("protocol", "judges", "metrics"):
        if mine[key] != other[key]:
            raise UsageError(f"{name} differs from this evaluation in {key}, so its numbers cannot stand beside it")
    truths = [{(s["name"], s["hashes"].get("reference", "")) for s in m["sequences"]} for m in (mine, other)]
    if truths[0] != truths[1]:
        raise UsageError(f"{name} was measured on other sequences, so its numbers cannot stand beside these")
    names = [entry["name"] for entry in mine["sequences"]]
    rows = _rows(earlier, other, names)
    rows[:, 0] += len(mine["systems"])
    values, measured = (
        np.concatenate([report.values, earlier.values]),
        np.concatenate([report.measured, earlier.measured]),
    )
    both = np.concatenate([_rows(report, mine, names), rows])
    states = dict(report.states) | {f"{name}:{key}".replace(":", "-", 1): v for key, v in earlier.states.items()}
    manifest = {**mine, "systems": mine["systems"] + [f"{name}-{system}" for system in other["systems"]]}
    return dataclasses.replace(
        report, manifest_json=json.dumps(manifest, ensure_ascii=False), row_system=both[:, 0].astype(np.int32),
        row_sequence=both[:, 1].astype(np.int32), row_frame=both[:, 2].copy(), row_angle=_angles([report, earlier]),
        values=values, measured=measured,
        states=states,
    )  # fmt: skip
