"""Readers of foreign weight files that execute nothing: pickle, torch, npz, safetensors and ONNX."""
