"""Pictures, video and scene file formats."""
