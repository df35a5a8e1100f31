"""A sheet as pixels, without matplotlib's artists: what files and summaries show, in a tenth of their time."""

from __future__ import annotations

import io
import math
from functools import cache
from typing import Any

import numpy as np

from mm_metrics.extras import needed
from mm_metrics.render.draw import Mark, Sheet

DPI = 130
_FINER = 2  # drawn so many times as large, then shrunk: edges are smooth
_SCALE = _FINER * DPI / 72
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}  # on the baseline


def pixels(sheet: Sheet) -> np.ndarray:
    """``(height, width, 3)`` uint8 of a sheet, in the order of its marks. Raises ImportError without Pillow."""
    with needed("pillow", "pictures need Pillow"):
        from PIL import Image, ImageColor, ImageDraw
    width, height = (_FINER * int(side * DPI / 72 + 1e-6) for side in (sheet.width, sheet.height))
    image = Image.new("RGB", (width, height), "white")
    brush = ImageDraw.Draw(image, "RGBA")
    for mark in sheet.marks:
        points = [(_SCALE * x, _SCALE * y) for x, y in mark.points]
        color = (*ImageColor.getrgb(mark.color)[:3], round(255 * mark.alpha))
        size = mark.size * _SCALE
        if mark.kind == "rect":
            left, top, right, bottom = (round(end) for point in points for end in point)
            brush.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), color)
        elif mark.kind == "area":
            brush.polygon(points, color)
        elif mark.kind == "line":
            for part in _dashes(points, 2 * size) if mark.dash else [points]:
                brush.line(part, color, max(1, round(size)), "curve")
        elif mark.kind == "dot":
            ((x, y),) = points
            brush.ellipse((x - size, y - size, x + size, y + size), color)
        else:
            _write(image, brush, mark, points[0], color)
    return np.asarray(image.reduce(_FINER))


def _dashes(points: list[tuple[float, float]], long: float) -> list[list[tuple[float, float]]]:
    """The parts of a straight line that are drawn, each as `long` as the gap after it."""
    (x, y), (right, bottom) = points
    dx, dy = right - x, bottom - y
    step = long / (math.hypot(dx, dy) or long)
    starts = np.arange(0.0, 1.0, 2 * step).tolist()
    return [[(x + at * dx, y + at * dy) for at in (start, min(1.0, start + step))] for start in starts]


def _write(image: Any, brush: Any, mark: Mark, place: tuple[float, float], color: tuple[int, ...]) -> None:
    """Letters from, around or up to a place, turned about it."""
    from PIL import Image, ImageDraw

    letters, anchor = font(mark.size * _SCALE, mark.bold), _ANCHORS[mark.anchor]
    if not mark.turn:
        brush.text(place, mark.said, color, letters, anchor)
        return
    reach = math.ceil(letters.getlength(mark.said) + mark.size * _SCALE)
    mask = Image.new("L", (2 * reach, 2 * reach))
    ImageDraw.Draw(mask).text((reach, reach), mark.said, 255, letters, anchor)
    x, y = place
    image.paste(color, (round(x) - reach, round(y) - reach), mask.rotate(mark.turn, Image.Resampling.BICUBIC))


@cache
def font(size: float, bold: bool) -> Any:
    """Matplotlib's letters where it is there, for they have more signs and follow its settings; else Pillow's own."""
    from PIL import ImageFont

    try:
        from matplotlib.font_manager import FontProperties, findfont
    except ImportError:
        return ImageFont.load_default(size)
    return ImageFont.truetype(findfont(FontProperties(weight="bold" if bold else "normal")), size)


def png(image: np.ndarray) -> bytes:
    """An image ``(H, W, 3)`` uint8 as a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=3)
    return out.getvalue()
