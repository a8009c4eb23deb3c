"""Layers and a feedback for the tests of the QGIS side."""

import gc
import threading
import time
from pathlib import Path

from qgis.core import (
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsGeometry,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QCoreApplication, QEventLoop, QTimer

CLASSES = [
    {"value": 1, "name": "Water", "colour": "#7fbcfc"},
    {"value": 7, "name": "Forest", "colour": "#106b00"},
]


class Feedback(QgsProcessingFeedback):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__(False)
        self.warnings, self.infos, self.texts, self.debug = [], [], [], []

    def pushWarning(self, text):
        self.warnings.append(text)

    def pushInfo(self, text):
        self.infos.append(text)

    def pushDebugInfo(self, text):
        self.debug.append(text)

    def setProgressText(self, text):
        self.texts.append(text)

    def reportError(self, text, *_):
        self.warnings.append(text)


SQUARE = "POLYGON(({0} 0, {1} 0, {1} 1, {0} 1, {0} 0))"


def memory_polygons(values=(1, 7), field="class_id:integer", name="labels"):
    layer = QgsVectorLayer(f"Polygon?crs=EPSG:4326&field={field}", name, "memory")
    for number, value in enumerate(values):
        add_polygon(layer.dataProvider(), layer.fields(), value, number)
    return layer


def add_polygon(target, fields, value, number):
    feature = QgsFeature(fields)
    feature.setAttributes([value])
    feature.setGeometry(QgsGeometry.fromWkt(SQUARE.format(number, number + 0.5)))
    target.addFeatures([feature]) if hasattr(target, "capabilitiesString") else target.addFeature(feature)


def save(layer, path):
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.layerName = Path(path).stem
    code, *rest = QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(path), QgsCoordinateTransformContext(), options)
    assert code == QgsVectorFileWriter.WriterError.NoError, rest
    return str(path)


def load_as_qgis_does(context, feedback):
    """Do what Processing does in the main thread when an algorithm has ended; return the layers by name."""
    gc.collect()
    loaded = {}
    for destination, details in context.layersToLoadOnCompletion().items():
        layer = QgsProcessingUtils.mapLayerFromString(destination, context)
        details.setOutputLayerName(layer)
        # It takes none where it has found a layer of the project, which it then hands over.
        details.project.addMapLayer(context.temporaryLayerStore().takeMapLayer(layer))
        details.postProcessor().postProcessLayer(layer, context, feedback)
        loaded[layer.name()] = layer
    return loaded


def longest_gap(work, seconds=30):
    """Run QGIS's event loop until ``work`` is done; return the longest time between two ticks of it, in seconds.

    The time in which the machine gave this thread no processor is taken off: other programs are not what is measured.
    A wait for Python's lock or for one of ours is sleep to the machine, and counts.
    """
    ticks = [(time.perf_counter(), waited_for_a_processor())]
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: ticks.append((time.perf_counter(), waited_for_a_processor())))
    timer.start()
    deadline = time.monotonic() + seconds
    while not work() and time.monotonic() < deadline:
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
    timer.stop()
    assert work()
    return max((end - begin) - (waited - before) for (begin, before), (end, waited) in zip(ticks, ticks[1:]))


def waited_for_a_processor():
    """Return the seconds that this thread has been ready to run without a processor; 0 where Linux does not tell."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    return int(path.read_text().split()[1]) / 1e9 if path.exists() else 0.0
