"""Leakage: what the splits of a data set share, per modality and per group."""

from mm_metrics.leakage.detect import find_leakage
from mm_metrics.leakage.files import from_files
from mm_metrics.leakage.findings import Finding, Leakage

__all__ = ["find_leakage", "from_files", "Finding", "Leakage"]
