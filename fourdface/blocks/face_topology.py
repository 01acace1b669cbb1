"""Index sets of the 478-point dense landmark topology (468 face points and 2 x 5 iris points).

Left and right are the subject's own, as everywhere in the project. The numbers are facts of the public topology.
"""

from __future__ import annotations

import numpy as np

LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
EYE_RIGHT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYE_LEFT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
BROW_RIGHT = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
BROW_LEFT = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
NOSE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 294, 278, 344, 440, 275, 45, 220, 115, 48, 64)
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
IRIS_RIGHT = (468, 469, 470, 471, 472)
IRIS_LEFT = (473, 474, 475, 476, 477)

LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318))
"""Upper and lower inner-lip points that meet when the mouth is closed."""
LID_PAIRS = (
    (159, 145), (160, 144), (158, 153), (161, 163), (157, 154),
    (386, 374), (387, 373), (385, 380), (388, 390), (384, 381),
)  # fmt: skip
"""Upper and lower lid points that meet when the eye is closed: five of the right eye, five of the left."""

COUNT = 478
FACE_COUNT = 468


def landmark_weights() -> np.ndarray:
    """Weights [468] of the face points in a fit: features count more than the flat areas between them.

    The contour is weak because its points slide along the silhouette when the head turns.
    """
    weights = np.full(FACE_COUNT, 0.5, np.float32)
    for value, *groups in (
        (0.35, OVAL), (1.0, NOSE), (1.2, BROW_LEFT, BROW_RIGHT), (2.0, EYE_LEFT, EYE_RIGHT, LIPS_OUTER, LIPS_INNER),
    ):  # fmt: skip
        for group in groups:
            weights[list(group)] = value
    return weights
