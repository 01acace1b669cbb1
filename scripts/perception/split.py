"""Which pictures and clips are never trained on.

A file is held out when its stem is named here or, for the rest, when the hash of its stem falls into every tenth bin.
The named ones are single-person portraits and clips kept for the figures in docs/perception.md.
"""

from __future__ import annotations

import zlib

HELD_OUT_CLIPS = ("man_talk_22fps", "woman_expressions", "man_beard_glasses")
HELD_OUT_PORTRAITS = (
    "man_profile_90", "man_curly_bust", "man_sidelight_dark", "man_glasses_microphone_occluder", "man_white_beard_hat",
    "woman_wink", "woman_rainbow_hair", "woman_yaw_speaking", "woman_headscarf",
    "style_lineart", "style_painting_smile", "style_statue_marble",
)  # fmt: skip
HELD_OUT_FOLDERS = ("studio_c",)
HELD_OUT_BINS = 10


def original(stem: str) -> str:
    """Name of the picture of which `stem` is a rendered variant: face_07 is one of face; other names are their own."""
    name, _, number = stem.rpartition("_")
    return name if name and number.isdigit() else stem


def held_out(stem: str, hashed: bool, folders: tuple[str, ...] = ()) -> bool:
    """True where the picture or clip `stem` (in `folders`) belongs to the report split; `hashed` adds every tenth."""
    if any(folder in HELD_OUT_FOLDERS for folder in folders):
        return True
    if stem in HELD_OUT_CLIPS or stem in HELD_OUT_PORTRAITS:
        return True
    return hashed and zlib.crc32(original(stem).encode()) % HELD_OUT_BINS == 0
