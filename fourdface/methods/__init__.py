"""One readable place per paper or method."""
