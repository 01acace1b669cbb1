"""The `fourd` command line: one click command per file."""
