"""Pieces of the reports: escaped, self-contained, well formed."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from deepscape.engine import metrics, reports
from deepscape.engine.reports import Section
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.errors import BadInput
from markupsafe import Markup

CLASSES = (ClassEntry(3, "eau & <b>vase</b>", "#0000ff"), ClassEntry(300, "Wald", "#00ff00"))
MATRIX = np.array([[1234567, 2], [0, 9]])


def whole_page():
    plain = metrics.metrics_dict(metrics.scores(MATRIX), CLASSES)
    return reports.page(
        "Report of <script>alert(1)</script>",
        [
            Section("Warnings", reports.warnings_list(["A < B"])),
            Section("Curves", reports.curves("Loss", {"training": [1.0, 0.5, None], "validation": [1.2, 0.7, 0.6]}, 2)),
            Section("Matrix", reports.matrix_table(MATRIX, CLASSES)),
            Section("Classes", reports.scores_table(plain)),
            Section("Legend", reports.legend_table(CLASSES, {"Patches": [5, 6]})),
            Section("Facts", reports.facts([("Name", "x & y")])),
            Section("Numbers", reports.numbers([("Kappa", "0.900", "good")])),
            Section("Left out", Markup()),
        ],
        subtitle="a scene",
        footer="Deepscape",
    )


def test_classes_that_only_the_map_has_are_said_to_count_in_the_means():
    classes = (*CLASSES, ClassEntry(301, "See", "#ff0000"))
    counts = np.array([[4, 1, 1], [0, 5, 0], [0, 0, 0]])
    page = reports.scores_table(metrics.metrics_dict(metrics.scores(counts), classes))
    assert "No compared pixel of the reference is &#39;See&#39;: recall, F1 and IoU are 0 by definition" in page
    assert "means" not in reports.scores_table(metrics.metrics_dict(metrics.scores(MATRIX), CLASSES))


def test_everything_is_escaped():
    text = whole_page()
    assert "<script" not in text and "<b>vase" not in text
    assert "eau &amp; &lt;b&gt;vase&lt;/b&gt;" in text and "x &amp; y" in text and "A &lt; B" in text


def test_the_page_asks_nobody_for_anything():
    text = whole_page()
    assert not re.search(r"https?:|//[a-z]|src=|@import|url\(|<link|<script", text)


def test_the_page_is_well_formed():
    text = whole_page().replace("<!DOCTYPE html>", "").replace('<meta charset="utf-8">', "")
    text = re.sub(r'<meta name="viewport"[^>]*>', "", text)
    root = ElementTree.fromstring(text)
    assert [heading.text for heading in root.iter("h2")] == [
        "Warnings", "Curves", "Matrix", "Classes", "Legend", "Facts", "Numbers",
    ]  # fmt: skip
    assert len(list(root.iter("polyline"))) == 2


def test_the_matrix_names_its_axes_and_its_sums():
    text = reports.matrix_table(MATRIX, CLASSES)
    assert ">Reference<" in text and ">Map<" in text
    assert "1\u202f234\u202f569" in text  # row sum
    assert "100.0 %" in text and "81.8 %" in text


def test_classes_without_samples_are_not_available():
    text = reports.matrix_table(np.array([[5, 0], [0, 0]]), CLASSES)
    # The other class is never found and never right; that all of the one is right, no other could have disproved.
    assert text.count("n/a") == 3
    assert "n/a" in reports.scores_table(metrics.metrics_dict(metrics.scores(np.array([[5, 0], [0, 0]])), CLASSES))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [1e-9, 2e-9], [1e6, 3], [None, 0.2], [float("nan"), 1.0]])
def test_curves_stand_within_their_frame(values):
    svg = ElementTree.fromstring(str(reports.curves("Loss", {"training": values})))
    for line in svg.iter("polyline"):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 48 <= x <= 440 and 14 <= y <= 210


def test_curves_without_a_number_are_left_out():
    assert reports.curves("Kappa", {"training": [None, float("nan")]}) == ""


def test_numbers_are_written_for_people():
    assert (reports.decimal(0.98765), reports.decimal(None), reports.decimal(float("nan"))) == ("0.988", "n/a", "n/a")
    assert (reports.percent(0.5), reports.percent(None), reports.grouped(1234.0)) == ("50.0 %", "n/a", "1\u202f234")


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = reports.write_page(str(tmp_path / "rapport d'été"), "<p>é</p>")
    assert path.endswith("rapport d'été.html")
    assert [entry.name for entry in tmp_path.iterdir()] == ["rapport d'été.html"]
    with pytest.raises(BadInput, match="does not exist"):
        reports.write_page(str(tmp_path / "no" / "report.html"), "x")
