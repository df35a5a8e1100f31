"""Near copies of texts: the same letters but for case, punctuation and spaces; of longer texts also a few changes.

What people say in a few words is often said again by others, almost so: short texts are copies only where their letters
are equal, and never where one asks what the other says ("Cigars?", "Cigars."). A text of LONG words becomes a set of
shingles: runs of five characters of its normalised form, or of two tokens where it comes as integers. MinHash gives the
keys that make two such texts candidates; the Jaccard similarity of their shingles decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from datasketch import MinHash

from mm_metrics.leakage.inputs import Input, hasher
from mm_metrics.leakage.lookup import candidates, matches

LONG, LETTERS = 20, 6  # words, or tokens; letters that count as a word, for writing that sets no spaces
CHARACTERS, TOKENS = 5, 2  # a shingle's length
KEYS, ROWS = 32, 4  # keys a text, permutations a key: at a similarity of 0.5, 0.6, 0.7 a key is shared by 87, 99, 99.9%
SKETCH = 256  # shingles kept: of a longer text those with the smallest hashes, which estimate the similarity
# Two words changed of twenty; people who describe one scene in their own words reach 0.69, and README tells how many of
# the pairs found in real texts are copies.
SIMILARITY = 0.7
PAIRS = 1 << 14  # texts compared at a time
EQUAL_KEPT = 10  # earlier texts listed for a later one of the same letters
EMPTY = np.uint32(2**32 - 1)
PLAIN, ASKED, SAID = 0, 1, 2  # how a text ends: without a mark, with "?", with ".", "!" or a dash
ENDINGS = ((ASKED, re.compile(r"[?؟]\W*$")), (SAID, re.compile(r"[-.!–—。।]\W*$")))
BETWEEN_DIGITS = re.compile(r"(?<=\d)[^\w\s](?=\d)")  # 3.5 is not 35

RECORD = np.dtype(
    [
        ("letters", np.int64),
        ("keys", np.uint64, KEYS),
        ("sketch", np.uint32, SKETCH),
        ("shingles", np.int32),
        ("length", np.int32),
        ("mark", np.int8),
    ]
)


def describe(texts: Sequence[Input], rates: list[float | None]) -> np.ndarray:
    """``(N,)`` records of N texts, strings or (L,) integers; ``shingles`` is 0 where a text is short."""
    records = np.zeros(len(texts), dtype=RECORD)
    records["sketch"] = EMPTY
    units = [normalised(text) if isinstance(text, str) else np.asarray(text).astype(np.int64) for text in texts]
    long = []
    for n, (text, unit) in enumerate(zip(texts, units, strict=True)):
        solid = unit[unit != ord(" ")] if isinstance(text, str) else unit
        bits = int.from_bytes(hasher(solid.tobytes()).digest()[:8], "little") >> 1  # lookups pass negatives over
        records["letters"][n] = bits if len(solid) else -1
        records["length"][n] = len(solid)
        records["mark"][n] = _mark(text) if isinstance(text, str) else PLAIN
        words = max(int((unit == ord(" ")).sum()) - 1, len(solid) // LETTERS) if isinstance(text, str) else len(unit)
        if words >= LONG:
            long.append(n)
    sets = [shingles(units[n], CHARACTERS if isinstance(texts[n], str) else TOKENS) for n in long]
    for n, found in zip(long, sets, strict=True):
        records["sketch"][n, : len(found)] = found[:SKETCH]
        records["shingles"][n] = len(found)
    if long:
        hashes = MinHash.bulk([found.tolist() for found in sets], num_perm=KEYS * ROWS, seed=1, hashfunc=int)
        values = np.stack([minhash.hashvalues for minhash in hashes]).astype(np.uint64).reshape(len(long), KEYS, ROWS)
        records["keys"][long] = _mixed(values)
    return records


def shingles(units: np.ndarray, length: int) -> np.ndarray:
    """The sorted 32-bit hashes of the runs of ``length`` in ``(L,)`` characters or tokens."""
    runs = np.lib.stride_tricks.sliding_window_view(units.astype(np.int64).view(np.uint64), length)
    return np.unique((_mixed(runs) >> np.uint64(32)).astype(np.uint32))


class _Dropped(dict[int, int | None]):
    """Character → what becomes of it: punctuation and invisible ones go, every space is one; signs and emoji stay."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        gone = unicodedata.category(character)[0] == "P" or unicodedata.category(character) in ("Cc", "Cf")
        self[code] = ord(" ") if character.isspace() else None if gone else code
        return self[code]


_DROPPED = _Dropped()


def normalised(text: str) -> np.ndarray:
    """``(L,)`` code points in one case, without punctuation, with one space around each word.

    >>> bool((normalised("There's FIRE,  on Main st.") == normalised("theres fire on main st")).all())
    True
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    marked = BETWEEN_DIGITS.sub(lambda sign: chr(0xF0000 + ord(sign[0]) % 0xFFFE), plain)
    words = marked.translate(_DROPPED).split()
    return np.frombuffer(f" {' '.join(words)} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _mark(text: str) -> int:
    plain = unicodedata.normalize("NFKC", text)
    return next((mark for mark, ending in ENDINGS if ending.search(plain)), PLAIN)


def _mixed(values: np.ndarray) -> np.ndarray:
    """One well-mixed 64-bit number for each run along the last axis (the finaliser of splitmix64)."""
    state = np.full(values.shape[:-1], 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in range(values.shape[-1]):
        state = (state ^ values[..., column]) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def pairs(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """``(3, P)``: positions i and j of near copies among the records of two splits, and their likeness."""
    found = []
    for mark, other in ((PLAIN, None), (ASKED, SAID), (SAID, ASKED)):
        p, q = np.flatnonzero(earlier["mark"] == mark), np.flatnonzero(later["mark"] != other)
        i, j = matches(earlier["letters"][p], later["letters"][q], EQUAL_KEPT)
        found.append(np.stack([p[i], q[j], np.ones(len(i))]))
    i, j = (np.flatnonzero(records["shingles"]) for records in (earlier, later))
    for a, b in candidates(earlier["keys"][i], later["keys"][j]):
        for start in range(0, len(a), PAIRS):
            p, q = i[a[start : start + PAIRS]], j[b[start : start + PAIRS]]
            like = similarity(earlier[p], later[q])
            short, long = np.sort([earlier["length"][p], later["length"][q]], axis=0)  # a chorus may be sung twice
            found.append(np.stack([p, q, like])[:, (like >= SIMILARITY) & (short >= SIMILARITY * long)])
    return np.concatenate(found, axis=1)


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(P,)`` Jaccard similarity of P pairs of records: exact up to SKETCH shingles, else its bottom-k estimate."""
    both = np.sort(np.concatenate([a["sketch"], b["sketch"]], axis=1), axis=1)
    first = np.ones_like(both, dtype=bool)
    first[:, 1:] = both[:, 1:] != both[:, :-1]
    first &= both != EMPTY
    twice = np.zeros_like(first)
    twice[:, :-1] = first[:, :-1] & (both[:, 1:] == both[:, :-1])
    longest = np.maximum(a["shingles"], b["shingles"])
    bound = np.where(longest > SKETCH, SKETCH, 2 * SKETCH)[:, None]
    used = first & (np.cumsum(first, axis=1) <= bound)
    return (twice & used).sum(axis=1) / np.maximum(used.sum(axis=1), 1)
