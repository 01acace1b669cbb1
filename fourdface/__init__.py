"""fourd: one portrait photo becomes a 4D head."""

__version__ = "0.1.0"
