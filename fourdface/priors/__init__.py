"""Generative models that methods draw on, each once."""
