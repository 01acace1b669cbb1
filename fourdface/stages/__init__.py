"""One module per command: pure Artifact -> Artifact, no click, no paths, no printing."""
