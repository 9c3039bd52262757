"""Typeset formulas with matplotlib as drawings in the page, so that no network is needed."""

import html
import re
from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

SIZE = text_to_path.FONT_SCALE  # paths are of letters of this size
LARGER = 1.2  # than the text, whose letters are wider
FONT = FontProperties(size=SIZE, math_fontfamily="stix")
LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}


def svg(tex: str) -> str:
    """Draw a formula as an SVG of the size of the text around it, on the same baseline.

    Raises:
      ValueError: matplotlib cannot parse it; it supports most of TeX's mathematics.
    """
    # matplotlib leaves no space between a symbol and the name of a function.
    spaced = re.sub(r"(?<=[\w}])\s*\\(log|min)\b", r"\\,\\\1", " ".join(tex.split()))
    # matplotlib treats the transpose sign as a relation, with space on both sides.
    spaced = spaced.replace(r"\top", r"{\mathsf{T}}")
    written = f"${spaced}$"
    width, height, descent = text_to_path.get_text_width_height_descent(written, FONT, True)
    points, codes = text_to_path.get_text_path(FONT, written, ismath=True)
    box = f"0 {descent - height:.2f} {width:.2f} {height:.1f}"
    em = SIZE / LARGER
    style = f"width:{width / em:.3f}em;height:{height / em:.3f}em"
    return (
        f'<svg class="formula" role="img" aria-label="{html.escape(tex)}" viewBox="{box}" '
        f'style="{style};vertical-align:{-descent / em:.3f}em">'
        f'<path d="{_outline(points, codes)}"/></svg>'
    )


def _outline(points: Any, codes: Any) -> str:
    """Write a path as SVG commands; the vertical axis of SVG points down."""
    drawn = []
    for corners, code in Path(points, codes).iter_segments(simplify=False):
        if code == Path.CLOSEPOLY:
            drawn.append("Z")
        else:
            pairs = corners.reshape(-1, 2) * (1, -1)
            drawn.append(LETTERS[code] + " ".join(f"{x:.2f} {y:.2f}" for x, y in pairs))
    return "".join(drawn)


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(svg(node.astext()))
    _leave_out()


def _block(translator: Any, node: Any) -> None:
    large = node.astext().replace(r"\frac", r"\dfrac")
    translator.body.append(f'<div class="formula">{svg(large)}</div>')
    _leave_out()


def _leave_out() -> None:
    """Skip the source of a formula, which has been drawn."""
    from docutils.nodes import SkipNode

    raise SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer; ``html_math_renderer = "drawn"`` chooses it."""
    app.add_html_math_renderer("drawn", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
