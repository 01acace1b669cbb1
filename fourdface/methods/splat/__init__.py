"""The embedded default: one photo lifted to Gaussians rigged to the open head."""
