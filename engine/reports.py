"""Pieces of the HTML reports of training and assessment: one self-contained page, no request to anywhere.

Every piece takes plain values, escapes all of them, and gives `markupsafe.Markup`; `page` joins them. The page reads
on a screen in light or dark and prints on paper.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, Template
from markupsafe import Markup

from ..tasks.classtable import ClassEntry
from .metrics import scores
from .textfiles import write_text

TEMPLATES = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)

# Of the curves; told apart under the common forms of colour blindness, and dashed in turn for printing in grey.
_LINES = (("#0072b2", ""), ("#d55e00", "6 3"), ("#009e73", "2 3"), ("#cc79a7", "8 3 2 3"))


@dataclass(frozen=True)
class Section:
    """One part of a page: a heading, an optional sentence below it, and its content."""

    title: str
    body: Markup
    note: str = ""


def fill(template: Template, **values: Any) -> Markup:
    """Return a template's text, marked as escaped already: every template here is one of autoescape."""
    return Markup(template.render(**values))  # noqa: S704 # nosec B704 - rendered with autoescape


_PAGE = TEMPLATES.from_string("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { --ink: #1c2430; --soft: #5b6675; --line: #d8dee6; --paper: #fff; --tint: #f4f6f9; --mark: #0072b2;
  --warn: #8a5300; --warn-back: #fff6e5; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--tint); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 28px 36px 40px; background: var(--paper); }
header { border-bottom: 3px solid var(--mark); padding-bottom: 12px; margin-bottom: 20px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; }
header p { margin: 4px 0 0; color: var(--soft); }
h2 { font-size: 18px; margin: 30px 0 8px; }
img.picture { max-width: 100%; image-rendering: pixelated; }
.gallery { display: grid; gap: 16px; }
.gallery figure { margin: 0; }
.gallery img { width: 100%; display: block; image-rendering: pixelated; }
section > p { margin: 0 0 10px; color: var(--soft); max-width: 75ch; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: middle; }
th { font-weight: 600; }
th.text, td.text { text-align: left; }
thead th { border-bottom: 2px solid var(--ink); }
table.facts th { text-align: left; color: var(--soft); font-weight: 400; white-space: nowrap; vertical-align: top; }
table.facts td { text-align: left; overflow-wrap: anywhere; }
table.matrix td.cell { border: 1px solid var(--line); min-width: 62px; }
table.matrix td.hit { outline: 2px solid var(--ink); outline-offset: -2px; font-weight: 600; }
table.matrix .axis { color: var(--soft); font-weight: 400; text-align: center; border: 0; }
table.matrix .upright { writing-mode: vertical-rl; transform: rotate(180deg); padding: 10px 5px; }
table.matrix .sum { color: var(--soft); }
.swatch { display: inline-block; width: 14px; height: 14px; margin-right: 7px; vertical-align: -2px;
  border: 1px solid rgba(0,0,0,.35); border-radius: 2px; }
ul.numbers { display: flex; flex-wrap: wrap; gap: 12px; padding: 0; margin: 0 0 6px; list-style: none; }
ul.numbers li { flex: 1 1 140px; border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px;
  background: var(--tint); }
ul.numbers b { display: block; font-size: 25px; line-height: 1.2; }
ul.numbers span { color: var(--soft); }
ul.warnings { margin: 0; padding: 0; list-style: none; }
ul.warnings li { border-left: 4px solid #e69f00; background: var(--warn-back); color: var(--warn);
  padding: 7px 12px; margin: 0 0 6px; }
figure { margin: 0 0 12px; display: inline-block; width: 100%; max-width: 450px; vertical-align: top; }
figcaption { font-weight: 600; }
.above { margin: 18px 0 4px; }
.sides { display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-start; }
.sides figure { flex: 1 1 400px; }
.sides p { margin: 0 0 4px; color: var(--soft); max-width: 44ch; }
svg { width: 100%; height: auto; display: block; }
footer { margin-top: 34px; border-top: 1px solid var(--line); padding-top: 8px; color: var(--soft); font-size: 13px; }
@media print {
  body { background: #fff; font-size: 12px; }
  main { max-width: none; padding: 0; }
  section, figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
</style>
</head>
<body>
<main>
<header><h1>{{ title }}</h1>{% if subtitle %}<p>{{ subtitle }}</p>{% endif %}</header>
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% if section.note %}<p>{{ section.note }}</p>{% endif %}
{{ section.body }}
</section>
{% endfor %}
{% if footer %}<footer>{{ footer }}</footer>{% endif %}
</main>
</body>
</html>
""")


def page(title: str, sections: Sequence[Section], subtitle: str = "", footer: str = "") -> str:
    """Return a whole HTML page; sections with an empty body are left out."""
    shown = [section for section in sections if section.body]
    return _PAGE.render(title=title, subtitle=subtitle, sections=shown, footer=footer)


def write_page(path: str, text: str) -> str:
    """Write a page (a missing suffix ``.html`` is added) under a temporary name; returns its real path.

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    return write_text(path, ".html", text, ".htm")


def decimal(value: Optional[float], digits: int = 3) -> str:
    """Return a number with so many digits after the point, "n/a" for None and NaN."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(value: Optional[float], digits: int = 1) -> str:
    """Return a share as per cent, "n/a" for None and NaN."""
    return "n/a" if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


def grouped(value: float) -> str:
    """Return a count with thin spaces between its thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


_FACTS = TEMPLATES.from_string("""<table class="facts">
{% for name, value in rows %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</table>""")


def facts(rows: Sequence[Tuple[str, Any]]) -> Markup:
    """Return a table of names and values; values may be text, numbers or Markup."""
    return fill(_FACTS, rows=rows) if rows else Markup()


_NUMBERS = TEMPLATES.from_string("""<ul class="numbers">
{% for name, value, hint in items %}<li><span>{{ name }}</span><b>{{ value }}</b><span>{{ hint }}</span></li>
{% endfor %}</ul>""")


def numbers(items: Sequence[Tuple[str, str, str]]) -> Markup:
    """Return the headline figures: (name, value, a few words below)."""
    return fill(_NUMBERS, items=items) if items else Markup()


_WARNINGS = TEMPLATES.from_string("""<ul class="warnings">
{% for text in texts %}<li>{{ text }}</li>
{% endfor %}</ul>""")


def warnings_list(texts: Sequence[str]) -> Markup:
    """Return the run's warnings; empty without any."""
    return fill(_WARNINGS, texts=texts) if texts else Markup()


_PICTURE = TEMPLATES.from_string('<p><img class="picture" alt="" src="data:image/png;base64,{{ data }}"></p>')


def picture(png: bytes) -> Markup:
    """Return a picture, which becomes part of the page."""
    return fill(_PICTURE, data=base64.b64encode(png).decode("ascii"))


_GALLERY = TEMPLATES.from_string("""<div class="gallery" style="grid-template-columns:repeat({{ titles|length }},1fr)">
{% for row in rows %}{% for title, data in row %}
<figure><figcaption>{{ title }}</figcaption><img alt="{{ title }}" src="data:image/png;base64,{{ data }}"></figure>
{% endfor %}{% endfor %}</div>""")


def gallery(titles: Sequence[str], rows: Sequence[Sequence[bytes]]) -> Markup:
    """Return rows of pictures (PNG), enlarged to the width of the page, each below its column's title."""
    data = [[base64.b64encode(png).decode("ascii") for png in row] for row in rows]
    return fill(_GALLERY, titles=titles, rows=[list(zip(titles, row)) for row in data]) if rows else Markup()


_TABLE = TEMPLATES.from_string("""<div class="wide"><table>
<thead><tr>
{% for name in head %}<th{% if loop.index0 < texts %} class="text"{% endif %}>{{ name }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr>
{% for cell in row %}<td{% if loop.index0 < texts %} class="text"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>
{% endfor %}</tbody></table></div>""")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], texts: int = 1) -> Markup:
    """Return a table; the first ``texts`` columns are text (to the left), the others numbers (to the right)."""
    return fill(_TABLE, head=head, rows=rows, texts=texts)


_SWATCH = TEMPLATES.from_string('<span class="swatch" style="background:{{ colour }}"></span>{{ name }}')


def swatch(entry: ClassEntry) -> Markup:
    """Return a class's name beside its colour."""
    return fill(_SWATCH, colour=entry.colour, name=entry.name)


def legend_table(classes: Sequence[ClassEntry], columns: Optional[Mapping[str, Sequence[Any]]] = None) -> Markup:
    """Return the legend: colour and name, value, and further columns (title -> one cell per class)."""
    more = dict(columns or {})
    rows = [
        [swatch(entry), entry.value, *(cells[number] for cells in more.values())]
        for number, entry in enumerate(classes)
    ]
    return table(["Class", "Value", *more], rows)


def scores_table(metrics: Mapping[str, Any]) -> Markup:
    """Return the accuracy per class from the plain metrics (`metrics.metrics_dict`)."""
    head = ["Class", "Value", "Precision (user's)", "Recall (producer's)", "F1", "IoU", "Reference", "Map"]
    rows: List[List[Any]] = []
    for row in metrics["classes"]:
        figures = [decimal(row[name]) for name in ("precision", "recall", "f1", "iou")]
        entry = ClassEntry(row["value"], row["name"], row["colour"])
        rows.append([swatch(entry), entry.value, *figures, grouped(row["support"]), grouped(row["mapped"])])
    note = _lacking(metrics)
    return table(head, rows) + (Markup("<p>{}</p>").format(note) if note else Markup())


def _lacking(metrics: Mapping[str, Any]) -> str:
    """Say what becomes of the classes that only the map has; empty where there are none, or there are no means."""
    names = [f"'{row['name']}'" for row in metrics["classes"] if not row["support"] and row["mapped"]]
    if not names or metrics["macro_f1"] is None:
        return ""
    return (
        f"No compared pixel of the reference is {' or '.join(names)}: recall, F1 and IoU are 0 by definition, not by "
        "measurement, and count in the means, which one pixel can lower so."
    )


_MATRIX = TEMPLATES.from_string("""<div class="wide"><table class="matrix">
<tr><td class="axis" colspan="2"></td><td class="axis" colspan="{{ count }}">{{ columns }}</td>
<td class="axis" colspan="2"></td></tr>
<tr><td class="axis" colspan="2"></td>
{% for name in names %}<th>{{ name }}</th>
{% endfor %}<th class="sum">Sum</th><th class="sum">Producer's accuracy</th></tr>
{% for row in rows %}<tr>
{% if loop.first %}<td class="axis" rowspan="{{ count }}"><span class="upright">{{ side }}</span></td>{% endif %}
<th class="text">{{ row.name }}</th>
{% for cell in row.cells %}<td class="{{ cell.kind }}" style="{{ cell.style }}">{{ cell.text }}</td>
{% endfor %}<td class="sum">{{ row.sum }}</td><td class="sum">{{ row.recall }}</td></tr>
{% endfor %}<tr><td class="axis"></td><th class="text sum">Sum</th>
{% for text in sums %}<td class="sum">{{ text }}</td>
{% endfor %}<td class="sum">{{ total }}</td><td></td></tr>
<tr><td class="axis"></td><th class="text sum">User's accuracy</th>
{% for text in precision %}<td class="sum">{{ text }}</td>
{% endfor %}<td></td><td class="sum">{{ overall }} overall</td></tr>
</table></div>""")


def matrix_table(
    matrix: npt.ArrayLike, classes: Sequence[ClassEntry], side: str = "Reference", columns: str = "Map"
) -> Markup:
    """Return a confusion matrix as a heat map: rows = reference, columns = map, shaded by the share of the row.

    Args:
        matrix: ``(K, K)`` counts.
        classes: in the matrix's order.
        side: what the rows are.
        columns: what the columns are ("Map", "Prediction").
    """
    counts = np.asarray(matrix)
    result = scores(counts)
    rows: List[Dict[str, Any]] = []
    for i, entry in enumerate(classes):
        total = max(float(counts[i].sum()), 1e-12)
        cells = [
            {
                "text": grouped(value),
                "kind": "cell hit" if i == j else "cell",
                "style": shade(float(value) / total, i == j),
            }
            for j, value in enumerate(counts[i])
        ]
        occurs = counts[i].sum() > 0
        rows.append(
            {
                "name": swatch(entry),
                "cells": cells,
                "sum": grouped(counts[i].sum()),
                "recall": percent(float(result.recall[i])) if occurs else "n/a",
            }
        )
    return fill(
        _MATRIX,
        count=len(classes),
        names=[swatch(entry) for entry in classes],
        rows=rows,
        side=side,
        columns=columns,
        sums=[grouped(value) for value in counts.sum(axis=0)],
        precision=[
            percent(float(value)) if column > 0 else "n/a"
            for value, column in zip(result.precision, counts.sum(axis=0))
        ],
        total=grouped(counts.sum()),
        overall=percent(result.overall_accuracy),
    )


def shade(share: float, hit: bool) -> str:
    """Return the cell's colours: blue for agreement, orange for confusion, deeper with the share of the row."""
    if share <= 0:
        return ""
    # Square root: a confusion of a few per cent is to be seen.
    depth = math.sqrt(min(share, 1.0))
    red, green, blue = (0, 114, 178) if hit else (213, 94, 0)
    mixed = [round(255 + (channel - 255) * 0.85 * depth) for channel in (red, green, blue)]
    ink = "#fff" if depth > 0.75 else "#1c2430"
    return f"background:rgb({mixed[0]},{mixed[1]},{mixed[2]});color:{ink}"


_BARS = TEMPLATES.from_string("""<svg viewBox="0 0 900 {{ height }}" role="img" aria-label="{{ label }}" font-size="13">
{% for tick in ticks %}<line x1="{{ tick.x }}" x2="{{ tick.x }}" y1="26" y2="{{ height - 4 }}" stroke="#d8dee6"/>
<text x="{{ tick.x }}" y="18" text-anchor="middle" fill="#5b6675" font-size="11">{{ tick.text }}</text>
{% endfor %}
{% for row in rows %}<text x="192" y="{{ row.y + 5 }}" text-anchor="end" fill="#1c2430">{{ row.name }}</text>
{% for bar in row.bars %}
<rect x="200" y="{{ bar.y }}" width="{{ bar.width }}" height="{{ thick }}" fill="{{ row.colour }}"
fill-opacity="{{ bar.fill }}" stroke="#1c2430" stroke-width="0.7"/>
<text x="{{ 206 + bar.width }}" y="{{ bar.y + thick - 3 }}" fill="#5b6675" font-size="11">{{ bar.text }}</text>
{% endfor %}{% endfor %}
</svg>""")

# More than this between the largest and the smallest count, and the axis is logarithmic.
_LINEAR_RATIO = 100


def bars(classes: Sequence[ClassEntry], series: Mapping[str, Sequence[int]]) -> Markup:
    """Return counts per class as horizontal bars in the classes' colours, as inline SVG.

    The axis is logarithmic where the counts differ by more than a factor of 100.

    Args:
        classes: one group of bars each.
        series: what is counted -> one count per class; the first is drawn pale, the others full.
    """
    counts = [count for values in series.values() for count in values]
    most = max(counts, default=0)
    if most == 0:
        return Markup()
    least = min(count for count in counts if count)
    logarithmic = most / least > _LINEAR_RATIO
    low = 10.0 ** (math.ceil(math.log10(least)) - 1) if logarithmic else 0.0
    ticks = _axis(0, most)[2]
    if logarithmic:
        ticks = [10.0**power for power in range(round(math.log10(low)), math.ceil(math.log10(most)) + 1)]
    high = ticks[-1]

    def width(count: float) -> float:
        if count <= 0:
            return 0.0
        share = math.log(count / low) / math.log(high / low) if logarithmic else count / high
        return round(590 * share, 1)

    thick, step = 15, 17 * len(series) + 12
    rows = [
        {
            "y": 34 + step * place + (step - 12) / 2,
            "name": entry.name if len(entry.name) <= 26 else entry.name[:25] + "\u2026",
            "colour": entry.colour,
            "bars": [
                {
                    "y": 34 + step * place + 17 * number,
                    "width": width(values[place]),
                    "fill": 0.35 if number == 0 else 1,
                    "text": f"{grouped(values[place])} {name}",
                }
                for number, (name, values) in enumerate(series.items())
            ],
        }
        for place, entry in enumerate(classes)
    ]
    return fill(
        _BARS,
        height=40 + step * len(rows),
        label=" and ".join(series) + " per class" + (", logarithmic" if logarithmic else ""),
        ticks=[{"x": 200 + width(tick) if tick > low else 200, "text": grouped(tick)} for tick in ticks],
        rows=rows,
        thick=thick,
    )


_CURVES = TEMPLATES.from_string("""<figure><figcaption>{{ title }}</figcaption>
<svg viewBox="0 0 450 250" role="img" aria-label="{{ title }}">
<g font-size="11" fill="#5b6675">
{% for tick in ticks %}<line x1="48" x2="440" y1="{{ tick.y }}" y2="{{ tick.y }}" stroke="#d8dee6"/>
<text x="43" y="{{ tick.y + 4 }}" text-anchor="end">{{ tick.text }}</text>
{% endfor %}
{% for tick in steps %}<text x="{{ tick.x }}" y="224" text-anchor="middle">{{ tick.text }}</text>
{% endfor %}
<text x="440" y="242" text-anchor="end">{{ unit }}</text>
{% if best %}<line x1="{{ best.x }}" x2="{{ best.x }}" y1="14" y2="208" stroke="#1c2430" stroke-dasharray="3 3"/>
<text x="{{ best.text_x }}" y="11" text-anchor="{{ best.anchor }}" fill="#1c2430">{{ best.text }}</text>{% endif %}
</g>
{% for line in lines %}
<g stroke="{{ line.colour }}" stroke-width="2" fill="none" stroke-dasharray="{{ line.dash }}">
{% if line.points %}<polyline stroke-linejoin="round" points="{{ line.points }}"/>
{% endif %}<line x1="{{ line.key }}" x2="{{ line.key + 24 }}" y1="238" y2="238"/></g>
{% for x, y in line.dots %}<circle cx="{{ x }}" cy="{{ y }}" r="2.5" fill="{{ line.colour }}"/>
{% endfor %}<text x="{{ line.key + 29 }}" y="242" font-size="11" fill="#1c2430">{{ line.name }}</text>
{% endfor %}
</svg></figure>""")


def curves(
    title: str,
    series: Mapping[str, Sequence[Optional[float]]],
    best: Optional[int] = None,
    best_text: str = "",
    unit: str = "epoch",
) -> Markup:
    """Return line curves over steps counted from 1, as inline SVG.

    Args:
        title: caption.
        series: name -> value per step; None and non-finite values leave a gap.
        best: step to mark, or None.
        best_text: what the mark says; "kept: 12" by default.
        unit: what the steps are.
    """
    known = [v for values in series.values() for v in values if v is not None and math.isfinite(v)]
    if not known:
        return Markup()
    count = max(len(values) for values in series.values())
    low, high, ticks = _axis(min(known), max(known))

    def x(step: int) -> float:
        return round(48 + (392 * (step - 1) / (count - 1) if count > 1 else 196), 1)

    def y(value: float) -> float:
        return round(208 - 190 * (value - low) / (high - low), 1)

    lines, key = [], 48
    for number, (name, values) in enumerate(series.items()):
        colour, dash = _LINES[number % len(_LINES)]
        places = [(x(i), y(v)) for i, v in enumerate(values, start=1) if v is not None and math.isfinite(v)]
        points = " ".join(f"{a},{b}" for a, b in places) if len(places) > 1 else ""
        lines.append(
            {
                "name": name,
                "colour": colour,
                "dash": dash,
                "points": points,
                "dots": places[:1] * (not points),
                "key": key,
            }
        )
        key += 45 + 7 * len(name)
    mark = None
    if best is not None:
        right = x(best) > 360
        shift = -4 if right else 4
        anchor = "end" if right else "start"
        mark = {"x": x(best), "text_x": x(best) + shift, "anchor": anchor, "text": best_text or f"kept: {best}"}
    steps = sorted({1, count, *(round(1 + (count - 1) * part / 4) for part in (1, 2, 3))})
    return fill(
        _CURVES,
        title=title,
        lines=lines,
        ticks=[{"y": y(value), "text": f"{value:g}"} for value in ticks],
        steps=[{"x": x(step), "text": step} for step in steps],
        best=mark,
        unit=unit,
    )


def _axis(low: float, high: float) -> Tuple[float, float, List[float]]:
    """Return the ends of an axis and about five round ticks that cover the values."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(number * step, 10) for number in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks
