"""List the near copies among the texts of a column, a sample of them, for a person to judge; equal texts count once.

python scripts/near_pairs.py lines.csv --column text --sample 100
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mm_metrics.leakage.files import rows
from mm_metrics.leakage.near import kinds, text


def near_pairs(texts: list[str]) -> list[tuple[str, str]]:
    """Every pair of different texts that the check calls near copies."""
    different = list(dict.fromkeys(texts))
    records = text.describe(different, [None] * len(different))
    i, j = kinds.pairs("text", records, records)
    return [(different[a], different[b]) for a, b in np.stack([i, j], axis=1)[i < j].tolist()]


def main(args: list[str] | None = None) -> None:
    """Print them, the texts of 20 words or more apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--column", default="text")
    parser.add_argument("--sample", type=int, default=100)
    given = parser.parse_args(args)
    texts = [str(row[given.column] or "").strip() for row in rows(given.file, [given.column])]
    found = near_pairs(texts)
    print(f"{len(texts):,} texts, {len(set(texts)):,} different, {len(found):,} near pairs")
    for what, long in (("under 20 words", False), ("20 words or more", True)):
        some = [pair for pair in found if (max(len(side.split()) for side in pair) >= text.LONG) == long]
        print(f"\n{what}: {len(some):,} pairs")
        for one, other in random.Random(0).sample(some, min(given.sample, len(some))):
            print(f"  {one!r}\n  {other!r}\n")


if __name__ == "__main__":
    main()
