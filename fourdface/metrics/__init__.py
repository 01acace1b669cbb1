"""Metrics of the field, each with one definition: `update`, `compute`, `merge` (docs/eval.md lists them)."""

from fourdface.metrics.base import Direction, Metric, MetricInfo, PairMetric
from fourdface.metrics.picture import Cost, Picture, Sample, Sound

__all__ = ["Cost", "Direction", "Metric", "MetricInfo", "PairMetric", "Picture", "Sample", "Sound"]
