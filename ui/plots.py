"""Curves over epochs, painted with QPainter: neither matplotlib nor Qt's charts are there with every QGIS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from qgis.PyQt.QtCore import QPointF, QRectF, QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor, QFontMetricsF, QPainter, QPalette, QPen, QPolygonF
from qgis.PyQt.QtWidgets import QSizePolicy, QWidget

from ..algorithms.translate import tr

# Beyond this ratio of the largest to the smallest value an axis from zero shows a flat line.
WIDE = 30.0

# (on light, on dark); told apart by those who do not see red or green, too (Okabe and Ito).
COLOURS = {"train": ("#0072b2", "#56b4e9"), "validation": ("#d55e00", "#e69f00")}


@dataclass(frozen=True)
class Curve:
    """A line of a plot: what the legend calls it, its colour's name in COLOURS, and (step, value) pairs in order."""

    name: str
    colour: str
    points: Tuple[Tuple[int, float], ...]


def nice_step(span: float, count: int) -> float:
    """Return 1, 2 or 5 times a power of ten, such that ``span`` has about ``count`` such steps."""
    rough = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)


def linear_ticks(low: float, high: float, count: int) -> List[float]:
    """Return round numbers that enclose low to high, which differ."""
    step = nice_step(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> List[float]:
    """Return 1, 2 and 5 times powers of ten that enclose low to high, powers alone where those are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1.0, 2.0, 5.0) if high / low <= 150 else (1.0,)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    begin = max((n for n, tick in enumerate(ticks) if tick <= low * 1.001), default=0)
    end = min((n for n, tick in enumerate(ticks) if tick >= high * 0.999), default=len(ticks) - 1)
    return ticks[begin : end + 1]


def epoch_ticks(low: int, high: int, count: int) -> List[int]:
    """Return whole round numbers between low and high, and low."""
    step = max(1, round(nice_step(max(1, high - low), count)))
    return sorted({low, *(number for number in range(step, high + 1, step) if number - low > step / 2)})


class CurvePlot(QWidget):
    """A plot of curves over epochs: a grid, a legend, the best epoch, and the values under the mouse.

    Signals:
        hovered: the epoch under the mouse, or None; plots side by side show it together.
    """

    hovered = pyqtSignal(object)

    def __init__(self, may_be_log: bool = False, highest: float = math.inf, parent: Optional[QWidget] = None) -> None:
        """Make an empty plot.

        Args:
            may_be_log: a wide range of positive values gets a logarithmic axis.
            highest: the axis goes no further than this.
            parent: the widget it is part of.
        """
        super().__init__(parent)
        self._may_be_log, self._highest = may_be_log, highest
        self._curves: List[Curve] = []
        self._best: Optional[int] = None
        self._hover: Optional[int] = None
        self._ticks: List[float] = [0.0, 1.0]
        self._log = False
        self.setMouseTracking(True)
        self.setMinimumSize(180, 110)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:
        return QSize(340, 190)

    def show_curves(self, curves: Sequence[Curve], best: Optional[int] = None) -> None:
        """Show these curves, with the best epoch marked."""
        self._curves, self._best = [curve for curve in curves if curve.points], best
        self.update()

    def show_epoch(self, epoch: Optional[int]) -> None:
        """Show the values of an epoch, as under the mouse; None shows none."""
        if epoch != self._hover:
            self._hover = epoch
            self.update()

    def scale(self) -> Tuple[List[float], bool]:
        """Return the ticks of the axis of values, which its ends are, and whether it is logarithmic."""
        values = [value for curve in self._curves for _, value in curve.points]
        low, high = min(values), max(values)
        if self._may_be_log and low > 0 and high / low >= WIDE:
            return log_ticks(low, high), True
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = low - 0.05, high + 0.05
        if self._may_be_log and low > 0 and low < 0.5 * high:
            low = 0.0  # a loss is read against zero
        ticks = linear_ticks(low, min(high, self._highest), max(2, self.height() // 45))
        return [tick for tick in ticks if tick <= self._highest + 1e-9], False

    # --- the mouse ---

    def mouseMoveEvent(self, event: Any) -> None:
        position = event.position() if hasattr(event, "position") else event.localPos()
        steps = sorted({step for curve in self._curves for step, _ in curve.points})
        if steps:
            area, (first, last) = self._area(), self._epochs()
            at = first + (position.x() - area.left()) / max(1.0, area.width()) * (last - first)
            self._hovered(min(steps, key=lambda step: abs(step - at)))
        super().mouseMoveEvent(event)

    def leaveEvent(self, event: Any) -> None:
        self._hovered(None)
        super().leaveEvent(event)

    def _hovered(self, epoch: Optional[int]) -> None:
        self.show_epoch(epoch)
        self.hovered.emit(epoch)

    # --- painting ---

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self.palette().color(QPalette.ColorRole.Base))
        painter.drawRoundedRect(QRectF(self.rect()), 4, 4)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if self._curves:
            self._ticks, self._log = self.scale()
            self._paint_grid(painter)
            self._paint_curves(painter)
            self._paint_legend(painter)
            if self._hover is not None:
                self._paint_values(painter, self._hover)
        else:
            painter.setPen(self._ink(130))
            text = tr("The first values come with the first epoch.")
            painter.drawText(QRectF(self.rect()).adjusted(12, 0, -12, 0), _CENTRED | Qt.TextFlag.TextWordWrap, text)
        painter.end()

    def _ink(self, alpha: int) -> QColor:
        colour = QColor(self.palette().color(QPalette.ColorRole.Text))
        colour.setAlpha(alpha)
        return colour

    def _colour(self, name: str) -> QColor:
        dark = self.palette().color(QPalette.ColorRole.Base).lightness() < 128
        return QColor(COLOURS[name][dark])

    def _metrics(self) -> QFontMetricsF:
        return QFontMetricsF(self.font())

    def _area(self) -> QRectF:
        """Return where the curves are, inside the labels."""
        metrics = self._metrics()
        left = 18 + max(metrics.horizontalAdvance(_number(tick)) for tick in self._ticks)
        return QRectF(self.rect()).adjusted(left, metrics.height() + 14, -16, -metrics.height() * 2 - 12)

    def _epochs(self) -> Tuple[int, int]:
        steps = [step for curve in self._curves for step, _ in curve.points]
        first, last = min(steps), max(steps)
        return first, max(last, first + 1)

    def _at(self, step: float, value: float) -> QPointF:
        area, (first, last) = self._area(), self._epochs()
        low, high = self._ticks[0], self._ticks[-1]
        if self._log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        part = min(1.0, max(0.0, (value - low) / (high - low)))
        return QPointF(
            area.left() + (step - first) / (last - first) * area.width(), area.bottom() - part * area.height()
        )

    def _paint_grid(self, painter: QPainter) -> None:
        area, metrics = self._area(), self._metrics()
        first, last = self._epochs()
        height = metrics.height()
        for tick in self._ticks:
            y = self._at(first, tick).y()
            painter.setPen(QPen(self._ink(28), 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(self._ink(170))
            painter.drawText(QRectF(0, y - height / 2, area.left() - 8, height), _RIGHT, _number(tick))
        for epoch in epoch_ticks(first, last, max(2, int(area.width() // 55))):
            x = self._at(epoch, self._ticks[0]).x()
            painter.setPen(QPen(self._ink(28), 1))
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
            painter.setPen(self._ink(170))
            painter.drawText(QRectF(x - 30, area.bottom() + 4, 60, height), _CENTRED, str(epoch))
        painter.drawText(QRectF(area.left(), area.bottom() + 4 + height, area.width(), height), _CENTRED, tr("Epoch"))
        painter.setPen(QPen(self._ink(110), 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())

    def _paint_curves(self, painter: QPainter) -> None:
        area = self._area()
        if self._best is not None:
            x = self._at(self._best, self._ticks[0]).x()
            painter.setPen(QPen(self._ink(150), 1, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
        for curve in self._curves:
            colour = self._colour(curve.colour)
            pen = QPen(colour, 2.2 if curve.colour == "validation" else 1.6)
            pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
            painter.setPen(pen)
            where = [self._at(step, value) for step, value in curve.points]
            painter.drawPolyline(QPolygonF(where))
            painter.setBrush(colour)
            painter.setPen(QPen(self.palette().color(QPalette.ColorRole.Base), 1.5))
            for (step, _), point in zip(curve.points, where):
                if len(where) == 1 or (step == self._best and curve.colour == "validation"):
                    painter.drawEllipse(point, 4.5, 4.5)
            painter.setBrush(Qt.BrushStyle.NoBrush)

    def _paint_legend(self, painter: QPainter) -> None:
        area, metrics = self._area(), self._metrics()
        x, y = area.left(), 6 + metrics.height() / 2
        entries = [(curve.name, QPen(self._colour(curve.colour), 3)) for curve in self._curves]
        if self._best is not None:
            entries.append((tr("best: {}").format(self._best), QPen(self._ink(150), 1, Qt.PenStyle.DashLine)))
        # A narrow plot's legend begins further left, and leaves out what the dashed line says anyway.
        widths = [24 + metrics.horizontalAdvance(name) + 18 for name, _ in entries]
        if x + sum(widths) > self.width():
            x = max(8.0, self.width() - sum(widths))
        if x + sum(widths) - 18 > self.width() and self._best is not None:
            entries.pop()
        for name, pen in entries:
            painter.setPen(pen)
            painter.drawLine(QPointF(x, y), QPointF(x + 18, y))
            painter.setPen(self._ink(220))
            width = metrics.horizontalAdvance(name) + 2
            painter.drawText(QRectF(x + 24, y - metrics.height() / 2, width, metrics.height()), _LEFT, name)
            x += 24 + width + 16

    def _paint_values(self, painter: QPainter, epoch: int) -> None:
        """Paint the line of an epoch, its points, and a box with its values."""
        area, metrics = self._area(), self._metrics()
        first, last = self._epochs()
        if not first <= epoch <= last:
            return
        x = self._at(epoch, self._ticks[0]).x()
        painter.setPen(QPen(self._ink(90), 1))
        painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
        known: Dict[str, Tuple[QColor, float]] = {}
        for curve in self._curves:
            for step, value in curve.points:
                if step == epoch:
                    known[curve.name] = (self._colour(curve.colour), value)
                    painter.setBrush(self._colour(curve.colour))
                    painter.drawEllipse(self._at(step, value), 3.5, 3.5)
        lines = [tr("Epoch {}").format(epoch), *(f"{name}  {value:.4g}" for name, (_, value) in known.items())]
        width = max(metrics.horizontalAdvance(line) for line in lines) + 16
        box = QRectF(x + 10, area.top() + 4, width, metrics.height() * len(lines) + 10)
        if box.right() > self.width() - 4:
            box.moveRight(x - 10)
        box.moveLeft(max(4.0, box.left()))
        painter.setPen(QPen(self._ink(90), 1))
        back = QColor(self.palette().color(QPalette.ColorRole.Base))
        back.setAlpha(235)
        painter.setBrush(back)
        painter.drawRoundedRect(box, 3, 3)
        colours = [self._ink(255), *(colour for colour, _ in known.values())]
        for number, (line, colour) in enumerate(zip(lines, colours)):
            painter.setPen(colour)
            top = box.top() + 5 + number * metrics.height()
            painter.drawText(QRectF(box.left() + 8, top, width, metrics.height()), _LEFT, line)


_CENTRED = Qt.AlignmentFlag.AlignCenter
_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


def _number(value: float) -> str:
    """Return a tick's number as briefly as it can be said."""
    return f"{value:.6g}"
