"""Layers and a feedback for the tests of the QGIS side."""

from pathlib import Path

from qgis.core import (
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsGeometry,
    QgsProcessingFeedback,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

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
