"""Leakage: what the splits of a data set share, per modality and per group."""

from mm_metrics.leakage.detect import find_leakage
from mm_metrics.leakage.findings import Finding, Leakage

__all__ = ["find_leakage", "Finding", "Leakage"]
