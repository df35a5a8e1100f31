"""A figure as SVG inside a page: text stays text, colours follow the page, nothing points outside."""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import TYPE_CHECKING

from mm_metrics.render import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TAG = re.compile(r"<[^<>]*>")
_COLORS = {draw.INK: "currentColor", draw.MUTED: "var(--muted)", draw.LINE: "var(--line)"} | {
    color: f"var(--c{i})" for i, color in enumerate(draw.SERIES)
}
_POINTS_TO_PIXELS = 1.5  # figures are drawn for a phone and shown larger where there is room


def inline(figure: Figure, name: str, alt: str) -> str:
    """The figure as an ``<svg>`` element; `name` makes its ids its own, `alt` is what is read instead of it."""
    import matplotlib

    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser's fonts have the letters that the one used for measuring lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, count=1, flags=re.DOTALL)
    targets = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', drawn))
    drawn = re.sub(r"<style.*?</style>", "", drawn.partition(">")[2], count=1, flags=re.DOTALL)  # it is for every "*"
    body = _TAG.sub(lambda tag: _rewritten(tag[0], name, targets), drawn)
    body = re.sub(r">\s+<", "><", body).replace("<g/>", "").replace("<defs></defs>", "").replace("<g></g>", "")
    width, height = (72 * side for side in figure.get_size_inches())
    said = html.escape(alt)
    return (
        f'<svg role="img" aria-label="{said}" viewBox="0 0 {width:g} {height:g}" '
        f'style="max-width:{width * _POINTS_TO_PIXELS:.0f}px"><title>{said}</title>{body.strip()}'
    )


def _rewritten(tag: str, name: str, targets: set[str]) -> str:
    """A tag with its ids made the figure's own or dropped, page colours, no fonts and no outside names."""

    def identified(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in targets else ""

    tag = re.sub(r' id="([^"]*)"', identified, tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", tag)
    tag = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', tag).replace("xlink:href", "href")
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"font: ((?:\w+ )*)([\d.]+px) [^;\"]*", r"font-weight: \1; font-size: \2", tag)
    tag = re.sub(r"\s+", " ", tag)
    return re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda m: f"{m[1]}: {_COLORS.get(m[2], m[2])}", tag)
