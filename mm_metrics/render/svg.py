"""A sheet of marks as SVG inside a page: text stays text, colours follow the page, nothing points outside."""

from __future__ import annotations

import html
from collections.abc import Iterable

from mm_metrics import words
from mm_metrics.render import draw
from mm_metrics.render.draw import Mark, Sheet

_COLORS = {draw.INK: "currentColor", draw.MUTED: "var(--muted)", draw.LINE: "var(--line)"} | {
    color: f"var(--c{i})" for i, color in enumerate(draw.SERIES)
}
_LARGER = 1.5  # pictures are drawn for a phone and shown larger where there is room


def inline(sheet: Sheet, alt: str) -> str:
    """The sheet as an ``<svg>`` element; `alt` is what is read instead of it."""
    said = html.escape(words.clean(alt))
    return (
        f'<svg role="img" aria-label="{said}" viewBox="0 0 {sheet.width:g} {sheet.height:g}" '
        f'style="max-width:{sheet.width * _LARGER:.0f}px">{"".join(map(_element, sheet.marks))}</svg>'
    )


def _element(mark: Mark) -> str:
    color = _COLORS.get(mark.color, mark.color)
    fill = f'style="fill:{color}"' + (f' opacity="{mark.alpha:.2f}"' if mark.alpha < 1 else "")
    (x, y), *_ = mark.points
    if mark.kind == "rect":
        (x, y), (right, bottom) = mark.points
        return f'<rect x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{bottom - y:.1f}" {fill}/>'
    if mark.kind == "dot":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{mark.size:g}" {fill}/>'
    if mark.kind == "area":
        return f'<path d="M{_path(mark.points)}Z" {fill}/>'
    if mark.kind == "line":
        dash = ";stroke-dasharray:2 2" if mark.dash else ""
        return f'<path d="M{_path(mark.points)}" style="fill:none;stroke:{color};stroke-width:{mark.size:g}{dash}"/>'
    anchor = "" if mark.anchor == "start" else f";text-anchor:{mark.anchor}"
    bold = ";font-weight:650" if mark.bold else ""
    turn = f' transform="rotate({-mark.turn:g} {x:.1f} {y:.1f})"' if mark.turn else ""
    style = f"font-size:{mark.size:.3g}px;fill:{color}{anchor}{bold}"
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}"{turn}>{html.escape(mark.said)}</text>'


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
