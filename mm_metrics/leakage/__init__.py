"""Leakage: what the splits of a data set share, per modality and per group.

>>> rows = [{"text": "smoke", "label": 1}]
>>> leaks = find_leakage({"train": rows, "test": rows}, ["text"], progress=False)
>>> print(leaks)  # a table: kind, modality, splits, count, share, pairs
kind           modality    splits                 count   share  examples
exact          text        train → test               1  100.0%  0→0
Compared text: 2 texts by letters.
>>> leaks.touched("test"), leaks.without("test").tolist()  # what to leave out of the test split
([0], [False])
"""

from mm_metrics.leakage.detect import find_leakage, from_files
from mm_metrics.leakage.findings import Compared, Finding, Leakage

__all__ = ["find_leakage", "from_files", "Compared", "Finding", "Leakage"]
