"""The report of a selection of samples: how many pixels each class has, and how many samples it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from markupsafe import Markup

from ..tasks.classtable import ClassEntry
from ..tasks.protocol import plugin_version
from . import reports
from .reports import Section


@dataclass(frozen=True)
class ClassSamples:
    """One class before and after the selection.

    Attributes:
        entry: value, name and colour.
        available: its pixels.
        samples: those that became samples.
        asked: samples that were asked for.
        features: features of a vector layer that have the class; None for a raster.
    """

    entry: ClassEntry
    available: int
    samples: int
    asked: int
    features: Optional[int] = None


def write_samples_report(
    path: str,
    name: str,
    classes: Sequence[ClassSamples],
    facts: Sequence[Tuple[str, str]],
    warnings: Sequence[str],
) -> str:
    """Write the HTML report of a selection and return its real path.

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    available = sum(each.available for each in classes)
    samples = sum(each.samples for each in classes)
    sections = [
        Section("Warnings", reports.warnings_list(warnings)),
        Section(
            "In short",
            reports.numbers(
                [
                    ("Samples", reports.grouped(samples), f"of {reports.grouped(available)} labelled pixels"),
                    ("Classes", str(sum(each.samples > 0 for each in classes)), f"of {len(classes)} with samples"),
                    ("Balance of pixels", _balance([each.available for each in classes]), "rarest to most frequent"),
                    ("Balance of samples", _balance([each.samples for each in classes]), "rarest to most frequent"),
                ]
            ),
        ),
        Section(
            "Pixels and samples per class",
            reports.bars(
                [each.entry for each in classes],
                {
                    "labelled pixels": [each.available for each in classes],
                    "samples": [each.samples for each in classes],
                },
            ),
        ),
        Section("Classes", _table(classes, available, samples), "Weight: pixels of the class per sample."),
        Section("Run", reports.facts(facts)),
    ]
    text = reports.page("Selected samples", sections, name, f"Deepscape {plugin_version()}")
    return reports.write_page(path, text)


def _balance(counts: Sequence[int]) -> str:
    return f"1 : {max(counts) / min(counts):.3g}" if counts and min(counts) else "n/a"


def _table(classes: Sequence[ClassSamples], available: int, samples: int) -> Markup:
    features = any(each.features is not None for each in classes)
    head = ["Class", "Value", "Pixels", "Share"]
    head += ["Features"] if features else []
    head += ["Asked", "Samples", "Share", "Weight"]
    rows: List[List[object]] = []
    for each in classes:
        row: List[object] = [reports.swatch(each.entry), each.entry.value, reports.grouped(each.available)]
        row.append(reports.percent(each.available / available if available else None))
        row += [reports.grouped(each.features or 0)] if features else []
        row += [reports.grouped(each.asked), reports.grouped(each.samples)]
        row.append(reports.percent(each.samples / samples if samples else None))
        row.append(f"{each.available / each.samples:.6g}" if each.samples else "n/a")
        rows.append(row)
    return reports.table(head, rows)
