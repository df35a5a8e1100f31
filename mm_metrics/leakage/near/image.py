"""Near copies of pictures: the same view after compression, resizing, a small crop, another brightness.

A picture leaves a grey thumbnail without its slow shades, and keys: signs of random projections of it, of the whole
and of its parts. Equal keys make two pictures candidates; they are copies where the thumbnails correlate when one is
laid over the other, whole or without up to a twentieth of each side. Hash libraries give 64 bits of the whole picture,
a quarter of which turn with such a crop: too many for a lookup that is not all pairs. The less a picture shows, the
more alike a copy must be: of tiny, enlarged or blurred pictures a crop is no longer told from another picture.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import uniform_filter

from mm_metrics.leakage.inputs import Input
from mm_metrics.leakage.lookup import agreeing, candidates

SIDE, COARSE = 32, 16  # of the thumbnail, and of what is compared
SMALLEST = 4  # pixels of the shorter side
TINY = 16  # pixels of the shorter side; below, and without finer detail, a picture is coarse
DETAIL = 0.005  # share of a thumbnail's variance that a picture which is not coarse has in waves shorter than SIDE / 6
CONTRAST = 2.0  # grey levels of 255 that a thumbnail must vary by
CROPS = (0.0, 0.025, 0.05)  # shares of a side that are tried
ENDS = ((0.05, 0.0), (0.0, 0.05))
VIEWS = (  # shares cut off, of rows and of columns: the whole, the middle, the corners
    ((0.0, 0.0), (0.0, 0.0)),
    ((0.04, 0.04), (0.04, 0.04)),
    *((rows, columns) for rows in ENDS for columns in ENDS),
)
AGAINST = (*((0, view) for view in range(len(VIEWS))), *((view, 0) for view in range(1, len(VIEWS))))
KEYS, BITS = 24, 16
AGREEMENT, COARSE_AGREEMENT = 0.75, 0.9  # share of key bits below which no thumbnails are compared
LIKENESS, COARSE_LIKENESS = 0.88, 0.993  # of a copy; among 1,797 digits of 8 × 8 pixels distinct ones reach 0.992
PAIRS = 4096

RECORD = np.dtype(
    [("thumbnail", np.uint8, (SIDE, SIDE)), ("keys", np.uint16, (len(VIEWS), KEYS)), ("used", bool), ("coarse", bool)]
)
LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)  # ITU-R BT.601
PLANES = np.random.default_rng(0).standard_normal((64, KEYS * BITS)).astype(np.float32)


def describe(pictures: list[Input], rates: list[float | None]) -> np.ndarray:
    """``(N,)`` records of N pictures: (H, W), (C, H, W) or (H, W, C); floats in any range, or 0…255."""
    records = np.zeros(len(pictures), dtype=RECORD)
    for n, picture in enumerate(pictures):
        grey = _grey(np.asarray(picture))
        records["used"][n] = min(grey.shape) >= SMALLEST
        records["coarse"][n] = min(grey.shape) < TINY
        records["thumbnail"][n] = _thumbnail(grey)
    whole = records["thumbnail"].astype(np.float32)
    for v, (rows, columns) in enumerate(VIEWS):
        blocks = _flat(_crop(*rows, SIDE) @ whole @ _crop(*columns, SIDE).T).reshape(-1, 8, SIDE // 8, 8, SIDE // 8)
        bits = (blocks.mean(axis=(2, 4)).reshape(-1, 64) @ PLANES > 0).reshape(len(pictures), KEYS, BITS)
        records["keys"][:, v] = bits @ (1 << np.arange(BITS, dtype=np.uint16))
    records["used"] &= _flat(whole).std(axis=(1, 2)) >= CONTRAST
    records["coarse"] |= _detail(whole) < DETAIL
    return records


def _detail(thumbnails: np.ndarray) -> np.ndarray:
    """Share of the variance that a picture of an eighth of the size could not hold, smoothly or in blocks enlarged."""
    level = thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)
    total = np.maximum((level**2).sum(axis=(1, 2)), 1e-6)
    slow = dctn(level, axes=(1, 2), norm="ortho")[:, : SIDE * 3 // 8, : SIDE * 3 // 8]
    waves = 1 - (slow**2).sum(axis=(1, 2)) / total
    blocks = level.reshape(-1, 8, SIDE // 8, 8, SIDE // 8)
    within = ((blocks - blocks.mean(axis=(2, 4), keepdims=True)) ** 2).sum(axis=(1, 2, 3, 4)) / total
    return np.minimum(waves, within)


def _grey(picture: np.ndarray) -> np.ndarray:
    """(H, W) float32 in 0…255."""
    array = np.nan_to_num(picture.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if array.ndim == 3:
        first = array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4)
        first = first or (array.shape[0] <= 4 and array.shape[0] < array.shape[2])
        array = array if first else np.moveaxis(array, -1, 0)
        colours = array[:3] if len(array) in (3, 4) else array
        array = np.tensordot(LUMA, colours, 1) if len(colours) == 3 else colours.mean(axis=0)
    if picture.dtype == np.uint8:
        return array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    return ((array - low) * (255 / max(high - low, 1e-12))).astype(np.float32)


def _thumbnail(grey: np.ndarray) -> np.ndarray:
    how = Image.Resampling.BOX if min(grey.shape) >= SIDE else Image.Resampling.BILINEAR
    small = Image.fromarray(grey).resize((SIDE, SIDE), how)
    return np.clip(np.round(np.asarray(small)), 0, 255).astype(np.uint8)


def _flat(thumbnails: np.ndarray) -> np.ndarray:
    """Without the slow shades: what is left after the mean of a square half as wide."""
    width = thumbnails.shape[-1] // 2 + 1
    return thumbnails - uniform_filter(thumbnails, (0, width, width), mode="nearest")


@cache
def _crop(before: float, after: float, side: int) -> np.ndarray:
    """``(side, SIDE)``: averages the thumbnail's columns, without a share of them at either end, into side columns."""
    edges = np.linspace(before * SIDE, (1 - after) * SIDE, side + 1)
    column = np.arange(SIDE)
    share = np.clip(np.minimum(edges[1:, None], column + 1) - np.maximum(edges[:-1, None], column), 0, None)
    return (share / share.sum(axis=1, keepdims=True)).astype(np.float32)


def pairs(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """``(3, P)``: positions i and j of near copies among the records of two splits, and their likeness."""
    i, j = np.flatnonzero(earlier["used"]), np.flatnonzero(later["used"])
    found = [np.zeros((3, 0))]
    # the whole of one against every view of the other, either way round
    one, other = (
        records["keys"][rows][:, list(views)].reshape(len(rows), len(AGAINST) * KEYS)
        for records, rows, views in zip((earlier, later), (i, j), zip(*AGAINST, strict=True), strict=True)
    )
    for a, b in candidates(one, other):
        a, b = agreeing_in_a_view(earlier[i], later[j], a, b)
        for start in range(0, len(a), PAIRS):
            p, q = i[a[start : start + PAIRS]], j[b[start : start + PAIRS]]
            like = likeness(earlier["thumbnail"][p], later["thumbnail"][q])
            coarse = earlier["coarse"][p] | later["coarse"][q]
            found.append(np.stack([p, q, like])[:, like >= np.where(coarse, COARSE_LIKENESS, LIKENESS)])
    return np.concatenate(found, axis=1)


def agreeing_in_a_view(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the candidate pairs those whose keys mostly agree between the whole of one and a view of the other."""
    coarse = x["coarse"][a] | y["coarse"][b]
    found = [
        agreeing(x["keys"][:, v], y["keys"][:, w], a[part], b[part], KEYS * BITS, share)
        for v, w in AGAINST
        for part, share in ((coarse, COARSE_AGREEMENT), (~coarse, AGREEMENT))
    ]
    pairs = np.unique(np.concatenate([p + len(x) * q for p, q in found]))
    return pairs % len(x), pairs // len(x)


def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(P,)`` largest correlation of P pairs of thumbnails over the crops of either one."""
    best = np.full(len(a), -1.0, dtype=np.float32)
    one, other = a.astype(np.float32), b.astype(np.float32)
    for left, right in ((one, other), (other, one)):
        whole = _unit(_crop(0.0, 0.0, COARSE) @ left @ _crop(0.0, 0.0, COARSE).T)
        for above, below in product(CROPS, repeat=2):
            rows = _crop(above, below, COARSE) @ right
            for before, after in product(CROPS, repeat=2):
                view = _unit(rows @ _crop(before, after, COARSE).T)
                np.maximum(best, np.einsum("pxy,pxy->p", whole, view), out=best)
    return best


def _unit(views: np.ndarray) -> np.ndarray:
    detail = _flat(views)
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    return detail / np.maximum(np.sqrt((detail * detail).sum(axis=(1, 2), keepdims=True)), 1e-6)
