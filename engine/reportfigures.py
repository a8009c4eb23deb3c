"""Figures of the assessment report: confusion matrices as shares, and curves over a unit square, as inline SVG."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from ..tasks.classtable import ClassEntry
from .reports import TEMPLATES, fill, shade, swatch

# Told apart under the common forms of colour blindness, and dashed in turn for printing in grey.
_LINES = (("#0072b2", ""), ("#d55e00", "6 3"), ("#009e73", "2 3"), ("#cc79a7", "8 3 2 3"))
_LEFT, _TOP, _WIDE, _HIGH = 48, 14, 384, 192

_SHARES = TEMPLATES.from_string("""<div class="wide"><table class="matrix">
<tr><td class="axis" colspan="2"></td><td class="axis" colspan="{{ names|length }}">Map</td>
{% if sums_shown %}<td class="axis"></td>{% endif %}</tr>
<tr><td class="axis" colspan="2"></td>
{% for name in names %}<th>{{ name }}</th>
{% endfor %}{% if sums_shown %}<th class="sum">Sum</th>{% endif %}</tr>
{% for row in rows %}<tr>
{% if loop.first %}<td class="axis" rowspan="{{ names|length }}"><span class="upright">Reference</span></td>{% endif %}
<th class="text">{{ row.name }}</th>
{% for cell in row.cells %}<td class="{{ cell.kind }}" style="{{ cell.style }}">{{ cell.text }}</td>
{% endfor %}{% if sums_shown %}<td class="sum">{{ row.sum }}</td>{% endif %}</tr>
{% endfor %}
{% if sums_shown %}<tr><td class="axis"></td><th class="text sum">Sum</th>
{% for text in sums %}<td class="sum">{{ text }}</td>
{% endfor %}<td class="sum">{{ total }}</td></tr>{% endif %}
</table></div>""")


def matrix_of_shares(matrix: npt.ArrayLike, classes: Sequence[ClassEntry], of: str) -> Markup:
    """Return a confusion matrix in per cent; rows = reference, columns = map.

    Args:
        matrix: ``(K, K)`` counts, or shares of the area.
        classes: in the matrix's order.
        of: what is 100 %: "rows" (the diagonal is the producer's accuracy), "columns" (the user's), or "all".
    """
    counts = np.asarray(matrix, dtype=np.float64)
    axes = {"rows": 1, "columns": 0, "all": None}
    whole = np.broadcast_to(counts.sum(axis=axes[of], keepdims=True), counts.shape)
    shares = np.divide(counts, whole, out=np.full(counts.shape, np.nan), where=whole > 0)
    digits = 2 if of == "all" else 1
    depth = np.nan_to_num(shares)
    if of == "all":
        depth = depth / max(float(depth.max()), 1e-12)
    rows: List[Dict[str, Any]] = [
        {
            "name": swatch(entry),
            "cells": [
                {
                    "text": _per_cent(float(shares[i, j]), digits),
                    "kind": "cell hit" if i == j else "cell",
                    "style": shade(float(depth[i, j]), i == j),
                }
                for j in range(len(classes))
            ],
            "sum": _per_cent(_sum(shares[i]), digits),
        }
        for i, entry in enumerate(classes)
    ]
    return fill(
        _SHARES,
        names=[swatch(entry) for entry in classes],
        rows=rows,
        sums=[_per_cent(_sum(column), digits) for column in shares.T],
        total=_per_cent(_sum(shares), digits),
        # The others are 100 % by what they are.
        sums_shown=of == "all",
    )


def _sum(shares: npt.NDArray[np.float64]) -> float:
    return math.nan if np.isnan(shares).all() else float(np.nansum(shares))


def _per_cent(share: float, digits: int) -> str:
    if math.isnan(share):
        return "\u2013"
    return "0" if share == 0 else f"{100 * share:.{digits}f} %"


_PLOT = TEMPLATES.from_string("""<figure><figcaption>{{ title }}</figcaption>
<svg viewBox="0 0 450 {{ 262 if named else 240 }}" role="img" aria-label="{{ title }}">
<g font-size="11" fill="#5b6675">
{% for tick in ticks %}<line x1="48" x2="432" y1="{{ tick.y }}" y2="{{ tick.y }}" stroke="#d8dee6"/>
<line x1="{{ tick.x }}" x2="{{ tick.x }}" y1="14" y2="206" stroke="#eef1f5"/>
<text x="43" y="{{ tick.y + 4 }}" text-anchor="end">{{ tick.text }}</text>
<text x="{{ tick.x }}" y="220" text-anchor="middle">{{ tick.text }}</text>
{% endfor %}
<text x="432" y="235" text-anchor="end">{{ across }}</text>
{% if up %}<text x="12" y="110" text-anchor="middle" transform="rotate(-90 12 110)">{{ up }}</text>{% endif %}
</g>
{% if diagonal %}<line x1="48" y1="206" x2="432" y2="14" stroke="#5b6675" stroke-dasharray="3 3"/>{% endif %}
{% for bar in bars %}<rect x="{{ bar.x }}" y="{{ bar.y }}" width="{{ bar.width }}" height="{{ bar.height }}"
fill="#0072b2" fill-opacity="0.12"/>
{% endfor %}
{% for line in lines %}<g stroke="{{ line.colour }}" stroke-width="2" fill="none" stroke-dasharray="{{ line.dash }}">
<polyline stroke-linejoin="round" points="{{ line.points }}"/>
{% if named %}<line x1="{{ line.key }}" x2="{{ line.key + 24 }}" y1="250" y2="250"/>{% endif %}</g>
{% if dots %}{% for x, y in line.places %}<circle cx="{{ x }}" cy="{{ y }}" r="3" fill="{{ line.colour }}"/>
{% endfor %}{% endif %}
{% if named %}<text x="{{ line.key + 29 }}" y="254" font-size="11" fill="#1c2430">{{ line.name }}</text>{% endif %}
{% endfor %}
{% for mark in marks %}<g font-size="11" fill="#1c2430">
{% if mark.rule %}<line x1="{{ mark.x }}" x2="{{ mark.x }}" y1="14" y2="206" stroke="#1c2430" stroke-dasharray="3 3"/>
{% endif %}
<circle cx="{{ mark.x }}" cy="{{ mark.y }}" r="4" fill="#fff" stroke="#1c2430" stroke-width="1.5"/>
<text x="{{ mark.text_x }}" y="{{ mark.text_y }}" text-anchor="{{ mark.anchor }}" stroke="#fff" stroke-width="3"
paint-order="stroke">{{ mark.text }}</text></g>
{% endfor %}
</svg></figure>""")

Point = Tuple[Optional[float], Optional[float]]


def plot(
    title: str,
    series: Mapping[str, Sequence[Point]],
    across: str,
    up: str = "",
    *,
    marks: Sequence[Tuple[float, float, str]] = (),
    rule: bool = False,
    diagonal: bool = False,
    dots: bool = False,
    bars: Sequence[Tuple[float, float, float]] = (),
) -> Markup:
    """Return lines over the unit square as inline SVG.

    Args:
        title: caption.
        series: name -> (x, y), 0 to 1 each; points with None are left out.
        across: what x is.
        up: what y is, where all series are of one kind.
        marks: (x, y, text) to point out.
        rule: draw a line down through each mark.
        diagonal: draw the line of y = x.
        dots: draw the points, not their line alone.
        bars: (from, to, height) behind the lines.
    """
    lines, key = [], _LEFT
    for number, (name, points) in enumerate(series.items()):
        places = [(_x(x), _y(y)) for x, y in points if x is not None and y is not None]
        colour, dash = _LINES[number % len(_LINES)]
        joined = " ".join(f"{x},{y}" for x, y in places)
        lines.append({"name": name, "colour": colour, "dash": dash, "points": joined, "places": places, "key": key})
        key += 45 + 7 * len(name)
    shown = [
        {
            "x": _x(x), "y": _y(y), "text": text, "rule": rule, "text_x": _x(x) + (-8 if x > 0.55 else 8),
            "text_y": min(_y(y) + 18, 200), "anchor": "end" if x > 0.55 else "start",
        }
        for x, y, text in marks
    ]  # fmt: skip
    boxes = [
        {
            "x": _x(low),
            "y": _y(height),
            "width": round(_x(high) - _x(low) - 1, 1),
            "height": round(_y(0) - _y(height), 1),
        }
        for low, high, height in bars
    ]
    return fill(
        _PLOT,
        title=title,
        ticks=[{"x": _x(part / 5), "y": _y(part / 5), "text": f"{part / 5:g}"} for part in range(6)],
        lines=lines,
        marks=shown,
        bars=boxes,
        across=across,
        up=up,
        diagonal=diagonal,
        dots=dots,
        named=len(series) > 1,
    )


def _x(value: float) -> float:
    return round(_LEFT + _WIDE * min(max(value, 0.0), 1.0), 1)


def _y(value: float) -> float:
    return round(_TOP + _HIGH * (1 - min(max(value, 0.0), 1.0)), 1)
