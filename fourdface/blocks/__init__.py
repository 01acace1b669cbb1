"""Shared building blocks: one noun per file."""
