"""Keep the eyelids and the eye sockets outside the eyeballs: at rest, in every identity, and along every expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from open_head.skeleton import smooth, smoothstep

if TYPE_CHECKING:
    from open_head.assemble import Head

GAP = 0.018
"""Least distance of a lid vertex from the eyeball at rest, source units."""
GAP_MOVING = 0.034
"""The same within an expression: more, for the other identities' radii."""
SOCKET_GAP = 0.09
"""Added to `GAP` inside the eye socket."""
OVERSHOOT = 0.14
"""Radians by which a full blink carries the upper margin past the lower one; other identities need some of it."""
STEPS = np.linspace(0.2, 1.0, 9)


class Eyelids:
    """The vertices near each eye, their directions from its centre, and how strictly they keep to it."""

    def __init__(self, head: Head) -> None:
        self.head = head
        p = head.template
        self.center = {s: head.eyes[s].center for s in ("left", "right")}
        self.radius = {s: head.eyes[s].radius for s in ("left", "right")}
        self.near: dict[str, np.ndarray] = {}
        self.hold: dict[str, np.ndarray] = {}
        self.gap: dict[str, np.ndarray] = {}
        for side in ("left", "right"):
            rim = head.labels[f"lid_rim_{side}"]
            socket = head.labels[f"socket_{side}"]
            distance = cKDTree(p[rim]).query(p)[0]
            reach = np.linalg.norm(p - self.center[side], axis=1) < self.radius[side] + 0.75
            mine = head.mask("skin") & ~head.labels["bag"] & ((distance < 1.6) | socket | rim) & reach
            self.near[side] = mine
            # The socket is coarse and hidden: its chords need more room.
            self.gap[side] = GAP + np.where(socket, SOCKET_GAP * smoothstep(distance / 0.5), 0.0)
            self.hold[side] = np.where(socket | rim, 1.0, mine * smoothstep(1 - distance / 0.5))

    def clear_template(self) -> np.ndarray:
        """Template [V, 3] with lids and sockets moved outwards to `GAP`."""
        out = self.head.template.copy()
        for side, mine in self.near.items():
            arm = out[mine] - self.center[side]
            length = np.linalg.norm(arm, axis=1, keepdims=True)
            out[mine] = (
                self.center[side] + arm * np.maximum(length, self.radius[side] + self.gap[side][mine, None]) / length
            )
        return out

    def follow_eyeballs(self, field: np.ndarray) -> np.ndarray:
        """An identity displacement [V, 3] in which rim and socket keep their distance from the moving eyeball."""
        out = field.copy()
        unit_rows = {s: self.head.spans[f"eyeball_{s}"] for s in self.near}
        for side, mine in self.near.items():
            ball = field[unit_rows[side]]
            shift = 0.5 * (ball[0] + ball[-1])
            growth = 0.5 * (ball[0] - ball[-1])[2]
            arm = self.head.template[mine] - self.center[side]
            direction = arm / np.linalg.norm(arm, axis=1, keepdims=True)
            wanted = direction @ shift + growth
            missing = wanted - (direction * field[mine]).sum(1)
            out[mine] += (self.hold[side][mine] * missing)[:, None] * direction
        return out

    def close_blink(self, field: np.ndarray, side: str) -> np.ndarray:
        """A blink displacement [V, 3] in which the upper lid's margin reaches past the lower lid's, `OVERSHOOT` deep.

        The source's blink leaves a slit and a bump. In angles around the eyeball, the upper lid's skin is turned
        further down, by what its margin lacks at that azimuth, in proportion to how far it moves already.
        """
        p, mine = self.head.template, self.near[side] & ~self.head.labels[f"socket_{side}"]
        rest, moved = self._angles(p, side), self._angles(p + field, side)
        rim = np.flatnonzero(self.head.labels[f"lid_rim_{side}"])
        ends = rim[np.argsort(rest[rim, 0])[[0, -1]]]
        middle_line = np.interp(rest[:, 0], rest[ends, 0], rest[ends, 1])
        upper, lower = mine & (rest[:, 1] > middle_line), mine & (rest[:, 1] <= middle_line)
        knots = np.linspace(rest[ends[0], 0], rest[ends[1], 0], 25)
        width = 1.5 * (knots[1] - knots[0])
        close = rest[:, 1] - middle_line
        top = self._envelope(moved, upper & (close < 0.7), knots, width, -1)
        bottom = self._envelope(moved, lower & (close > -0.5), knots, width, 1)
        travel = rest[:, 1] - moved[:, 1]
        most = np.array([travel[upper & (np.abs(moved[:, 0] - k) < width)].max(initial=1e-3) for k in knots])
        place = (knots - knots[0]) / (knots[-1] - knots[0])
        lack = np.maximum(top - bottom + OVERSHOOT * np.sin(np.pi * place) ** 0.5, 0.0)
        share = np.clip(travel / np.maximum(np.interp(moved[:, 0], knots, most), 1e-3), 0, 1)
        inside = smoothstep((moved[:, 0] - knots[0] + 0.08) / 0.08) * smoothstep(
            (knots[-1] + 0.08 - moved[:, 0]) / 0.08
        )
        turn = np.where(upper, np.interp(moved[:, 0], knots, lack) * share * inside, 0.0)
        turn = smooth(turn, self.head.faces, len(p), ~mine, 2)
        arm = p + field - self.center[side]
        length = np.linalg.norm(arm, axis=1)
        elevation = moved[:, 1] - turn
        flat = length * np.cos(elevation)
        turned = np.stack([flat * np.sin(moved[:, 0]), length * np.sin(elevation), flat * np.cos(moved[:, 0])], 1)
        return np.where(turn[:, None] > 0, turned + self.center[side] - p, field)

    def _angles(self, points: np.ndarray, side: str) -> np.ndarray:
        """Azimuth and elevation [V, 2] in radians around the eyeball's centre."""
        arm = points - self.center[side]
        return np.stack([np.arctan2(arm[:, 0], arm[:, 2]), np.arcsin(arm[:, 1] / np.linalg.norm(arm, axis=1))], 1)

    @staticmethod
    def _envelope(angles: np.ndarray, mine: np.ndarray, knots: np.ndarray, width: float, sign: int) -> np.ndarray:
        """Lowest (sign -1) or highest (+1) elevation at each azimuth knot."""
        edge = np.array(
            [(sign * angles[mine & (np.abs(angles[:, 0] - k) < width), 1]).max(initial=-1.5) for k in knots]
        )
        return sign * edge

    def clear_expression(self, field: np.ndarray, identity: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """An expression displacement [V, 3] pushed outwards where its straight path would enter the eyeball.

        identity: modes [S, V, 3]; coefficients: [n, S] of the heads in which the lids have to be clear.
        """
        out = field.copy()
        for side, mine in self.near.items():
            moving = mine & (np.abs(field).max(1) > 1e-3)
            if not moving.any():
                continue
            heads, centers, radii = self._sample(identity, coefficients, moving, side)
            for _ in range(3):
                push = np.zeros(len(out))
                push[moving] = self._push(heads, centers, radii, out[moving])
                if push.max() < 1e-4:
                    break
                spread = smooth(push, self.head.faces, len(out), ~mine, 4)
                arm = self.head.template + out - self.center[side]
                out += np.maximum(push, spread)[:, None] * arm / np.linalg.norm(arm, axis=1, keepdims=True)
        return out

    def _sample(
        self, identity: np.ndarray, coefficients: np.ndarray, moving: np.ndarray, side: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Moving vertices [n, k, 3] at rest, centres [n, 1, 3] and radii [n, 1] of the given identities."""
        p = self.head.template
        heads = p[moving] + np.tensordot(coefficients, identity[:, moving], 1)
        poles = np.array([self.head.spans[f"eyeball_{side}"].start, self.head.spans[f"eyeball_{side}"].stop - 1])
        front, back = (p[poles] + np.tensordot(coefficients, identity[:, poles], 1)).transpose(1, 0, 2)
        return heads, 0.5 * (front + back)[:, None], 0.5 * np.linalg.norm(front - back, axis=1)[:, None]

    @staticmethod
    def _push(heads: np.ndarray, centers: np.ndarray, radii: np.ndarray, field: np.ndarray) -> np.ndarray:
        """Outward displacement [k] at coefficient 1 that clears all steps of the path in all heads."""
        rest = np.linalg.norm(heads - centers, axis=2)
        push = np.zeros(field.shape[0])
        for t in STEPS:
            length = np.linalg.norm(heads + t * field - centers, axis=2)
            floor = np.minimum(radii + GAP + t * (GAP_MOVING - GAP), rest + 0.01)  # sockets begin nearer: not deeper
            push = np.maximum(push, ((floor - length) / t).max(0))
        return push
