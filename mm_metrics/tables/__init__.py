r"""Tables in files, to blocks of rows: CSV, JSON Lines and Parquet, the one reader of predictions and of manifests.

>>> import tempfile
>>> from pathlib import Path
>>> from mm_metrics.tables.source import Source
>>> path = Path(tempfile.mkdtemp()) / "calls.csv"
>>> _ = path.write_text("target,clip\nsiren,7.flac\n")
>>> Source.of(path).columns()
['target', 'clip']
"""
