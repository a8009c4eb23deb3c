"""The dock that shows trainings while they run: curves, pictures of predictions, remaining time, two buttons."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from qgis.PyQt.QtCore import QRectF, QSize, Qt, QUrl
from qgis.PyQt.QtGui import QDesktopServices, QFontMetricsF, QImage, QPainter, QPalette
from qgis.PyQt.QtWidgets import (
    QBoxLayout,
    QComboBox,
    QDockWidget,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from ..algorithms.live import ACTIVE, CANCELLED, FAILED, FINISHED, RUNNING, STOPPING, Hub, Picture, Run
from ..algorithms.translate import tr
from .plots import Curve, CurvePlot

SIDE_BY_SIDE = 480  # pixels of width that plots side by side need
SCORES = ("kappa", "macro_f1", "mean_iou", "overall_accuracy")


def score_title(name: str) -> str:
    """Return what a score is called."""
    titles = {
        "kappa": tr("Kappa"),
        "macro_f1": tr("Macro F1"),
        "mean_iou": tr("Mean IoU"),
        "overall_accuracy": tr("Overall accuracy"),
    }
    return titles[name]


def time_left(seconds: float) -> str:
    """Return a duration as one says it: "about 12 min left"."""
    minutes = round(seconds / 60)
    if seconds < 45:
        return tr("less than a minute left")
    if minutes < 60:
        return tr("about {} min left").format(max(1, minutes))
    hours, minutes = divmod(minutes, 60)
    if hours < 5:
        return tr("about {0} h {1} min left").format(hours, minutes)
    return tr("about {} h left").format(round(seconds / 3600))


def state_text(run: Run) -> str:
    """Return a run's state in words."""
    if run.state == FAILED:
        return tr("Failed: {}").format(run.message)
    if run.active and run.cancel_asked.is_set():
        return tr("Cancelling…")
    if run.state == CANCELLED and run.message:  # what is kept
        return f"{tr('Cancelled')}. {run.message}"
    words = {
        RUNNING: tr("Training"),
        STOPPING: tr("Stopping; the best epoch is kept"),
        FINISHED: tr("Finished"),
        CANCELLED: tr("Cancelled"),
    }
    return words[run.state]


class Pictures(QWidget):
    """Pictures below one another, each as wide as there is room, with its caption above it."""

    GAP = 10

    def __init__(self, parent: Optional[QWidget] = None) -> None:
        super().__init__(parent)
        self._images: List[Tuple[QImage, str]] = []
        self._known: Dict[str, Picture] = {}
        self.setMinimumWidth(160)

    def show_pictures(self, pictures: Dict[str, Picture]) -> None:
        """Show the latest picture of each name."""
        if pictures == self._known:
            return
        self._known = dict(pictures)
        self._images = []
        for name, picture in pictures.items():
            image = QImage.fromData(picture.png)
            if not image.isNull():
                text = tr("Epoch {0}: {1}").format(picture.step, picture.caption or name)
                self._images.append((image, text))
        self._fit()
        self.update()

    def resizeEvent(self, event: Any) -> None:
        self._fit()
        super().resizeEvent(event)

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        metrics, y = QFontMetricsF(self.font()), 0.0
        for image, text in self._images:
            painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
            line = metrics.elidedText(text, Qt.TextElideMode.ElideRight, self.width())
            painter.drawText(QRectF(0, y, self.width(), metrics.height()), Qt.AlignmentFlag.AlignLeft, line)
            y += metrics.height() + 3
            width, height = self._size(image)
            # Pixels stay pixels where they are enlarged.
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, width < image.width())
            painter.drawImage(QRectF(0, y, width, height), image)
            y += height + self.GAP
        painter.end()

    def _size(self, image: QImage) -> Tuple[float, float]:
        width = float(min(self.width(), 4 * image.width()))
        return width, width * image.height() / max(1, image.width())

    def _fit(self) -> None:
        line = QFontMetricsF(self.font()).height() + 3 + self.GAP
        self.setMinimumHeight(int(sum(line + self._size(image)[1] for image, _ in self._images)))


class ElidedLabel(QLabel):
    """A line that ends in dots where there is no room for it."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
        text = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, self.width())
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)
        painter.end()


class TrainingDock(QDockWidget):
    """The trainings of this session."""

    def __init__(self, hub: Hub, parent: Optional[QWidget] = None) -> None:
        super().__init__(tr("Deepscape training"), parent)
        self.setObjectName("DeepscapeTraining")
        self._hub = hub
        self._score = SCORES[0]
        self._pages = QStackedWidget()
        self._pages.addWidget(self._empty_page())
        self._pages.addWidget(self._run_page())
        self.setWidget(self._pages)
        hub.began.connect(self._on_began)
        hub.changed.connect(self._on_changed)
        for run in hub.runs:
            self._on_began(run)

    def detach(self) -> None:
        """Hear no more of the hub."""
        self._hub.began.disconnect(self._on_began)
        self._hub.changed.disconnect(self._on_changed)

    def run(self) -> Optional[Run]:
        """Return the run that is shown."""
        index = self.runs.currentIndex()
        return self._hub.runs[index] if 0 <= index < len(self._hub.runs) else None

    # --- what it is made of ---

    def _empty_page(self) -> QWidget:
        page = QWidget()
        text = QLabel(
            "<p><b>{}</b></p><p>{}</p>".format(
                tr("No training has run in this session yet."),
                tr("Its curves, pictures and remaining time appear here as soon as one starts."),
            )
        )
        text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        text.setWordWrap(True)
        layout = QVBoxLayout(page)
        layout.setContentsMargins(24, 24, 24, 24)
        layout.addWidget(text)
        return page

    def _run_page(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(8)
        self.runs = QComboBox()
        self.runs.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.runs.setMinimumContentsLength(16)
        self.runs.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.runs.currentIndexChanged.connect(lambda index: self.refresh())
        layout.addWidget(self.runs)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.remaining = QLabel()
        self.remaining.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        facts = QHBoxLayout()
        facts.addWidget(self.state, 1)
        facts.addWidget(self.remaining)
        layout.addLayout(facts)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        layout.addWidget(self.bar)
        layout.addWidget(self._middle(), 1)
        self.line = ElidedLabel()
        layout.addWidget(self.line)
        layout.addLayout(self._footer())
        return page

    def _middle(self) -> QWidget:
        self.loss = CurvePlot(may_be_log=True)
        self.score = CurvePlot(highest=1.0)
        self.loss.hovered.connect(self.score.show_epoch)
        self.score.hovered.connect(self.loss.show_epoch)
        self.scores = QComboBox()
        self.scores.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.scores.currentIndexChanged.connect(self._on_score)
        self.pictures = Pictures()
        self._scroll = QScrollArea()
        self._scroll.setWidget(self.pictures)
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        title = QLabel(f"<b>{tr('Loss')}</b>")
        title.setMinimumHeight(self.scores.sizeHint().height())
        middle = QWidget()
        self._flow = QBoxLayout(QBoxLayout.Direction.TopToBottom, middle)
        self._flow.setContentsMargins(0, 0, 0, 0)
        self._flow.setSpacing(10)
        self._flow.addWidget(_under(title, self.loss), 3)
        self._flow.addWidget(_under(self.scores, self.score), 3)
        self._flow.addWidget(self._scroll, 4)
        return middle

    def _footer(self) -> QHBoxLayout:
        self.stop = QPushButton(tr("Stop and keep the best"))
        self.stop.setToolTip(tr("End the training now; the weights of the best epoch so far become the model."))
        self.stop.clicked.connect(lambda checked=False: self._with_run(self._hub.stop))
        self.cancel = QPushButton(tr("Cancel"))
        self.cancel.setToolTip(tr("End the training and keep nothing."))
        self.cancel.clicked.connect(lambda checked=False: self._with_run(self._hub.cancel))
        self.report = QPushButton(tr("Open report"))
        self.report.clicked.connect(lambda checked=False: self._with_run(_open_report))
        footer = QHBoxLayout()
        footer.addStretch(1)
        for button in (self.stop, self.cancel, self.report):
            footer.addWidget(button)
        return footer

    def sizeHint(self) -> QSize:
        return QSize(420, 620)

    def resizeEvent(self, event: Any) -> None:
        wide = self.width() >= max(SIDE_BY_SIDE, 1.1 * self.height())
        self._flow.setDirection(
            QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom,
        )
        super().resizeEvent(event)

    # --- what happens ---

    def _with_run(self, action: Any) -> None:
        run = self.run()
        if run is not None:
            action(run)

    def _on_began(self, run: Run) -> None:
        self.runs.addItem(run.title)
        self.runs.setCurrentIndex(self.runs.count() - 1)
        self._pages.setCurrentIndex(1)
        self.refresh()

    def _on_changed(self, run: Run) -> None:
        if run is self.run():
            self.refresh()

    def _on_score(self, index: int) -> None:
        chosen = self.scores.itemData(index)
        if chosen:
            self._score = str(chosen)
            self._show_curves()

    def refresh(self) -> None:
        """Show the state of the chosen run."""
        run = self.run()
        if run is None:
            return
        self.state.setText(state_text(run))
        self.remaining.setText(time_left(run.remaining) if run.active and run.remaining is not None else "")
        share = run.done / run.total if run.total > 0 else 0.0
        self.bar.setValue(1000 if run.state == FINISHED else round(1000 * min(1.0, share)))
        self.bar.setVisible(run.state in (*ACTIVE, FINISHED))
        last = run.log[-1] if run.log else ""
        self.line.setText(last)
        self.line.setToolTip("\n".join(list(run.log)[-20:]))
        waits = run.cancel_asked.is_set()
        self.stop.setVisible(run.active)
        self.stop.setEnabled(run.state == RUNNING and not waits)
        self.cancel.setVisible(run.active)
        self.cancel.setEnabled(not waits)
        self.report.setVisible(not run.active and bool(run.report))
        self._list_scores(run)
        self._show_curves()
        self.pictures.show_pictures(run.pictures)
        self._scroll.setVisible(bool(run.pictures))

    def _list_scores(self, run: Run) -> None:
        known = [name for name in SCORES if f"validation/{name}" in run.metrics or f"train/{name}" in run.metrics]
        known = known or [self._score]
        if [self.scores.itemData(index) for index in range(self.scores.count())] == known:
            return
        self.scores.blockSignals(True)
        self.scores.clear()
        for name in known:
            self.scores.addItem(score_title(name), name)
        # The scores of the first epoch come one after the other: what is wished for may be the last.
        self.scores.setCurrentIndex(known.index(self._score) if self._score in known else 0)
        self.scores.blockSignals(False)

    def _show_curves(self) -> None:
        run = self.run()
        if run is None:
            return
        names = {"train": tr("training"), "validation": tr("validation")}
        score = str(self.scores.currentData() or self._score)
        for plot, number in ((self.loss, "loss"), (self.score, score)):
            curves = [Curve(names[role], role, tuple(run.metrics.get(f"{role}/{number}", ()))) for role in names]
            plot.show_curves(curves, run.best())


def _under(title: QWidget, plot: QWidget) -> QWidget:
    """Return a plot with its title above it."""
    both = QWidget()
    layout = QVBoxLayout(both)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    layout.addWidget(title, 0, Qt.AlignmentFlag.AlignLeft)
    layout.addWidget(plot, 1)
    return both


def _open_report(run: Run) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(run.report))
