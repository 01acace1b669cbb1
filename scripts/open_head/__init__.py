"""Steps of `scripts/build_open_head.py`, one file each."""
