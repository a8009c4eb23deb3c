"""The only version switches: QGIS 3.22 to 4.x from one source.

QGIS 3.36 and 4 moved the enums of Processing to `Qgis`; the names below are looked up where this QGIS has them.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import qgis.core
from qgis.core import NULL, Qgis, QgsProcessingUtils


def _first(*paths: str) -> Any:
    """Return the first of these dotted names that ``qgis.core`` has."""
    for path in paths:
        try:
            return reduce(getattr, path.split("."), qgis.core)
        except AttributeError:
            continue
    raise ImportError(f"QGIS {Qgis.QGIS_VERSION} has none of {', '.join(paths)}")


SOURCE_VECTOR = _first("Qgis.ProcessingSourceType.VectorAnyGeometry", "QgsProcessing.SourceType.TypeVectorAnyGeometry")
SOURCE_POINT = _first("Qgis.ProcessingSourceType.VectorPoint", "QgsProcessing.SourceType.TypeVectorPoint")
SOURCE_POLYGON = _first("Qgis.ProcessingSourceType.VectorPolygon", "QgsProcessing.SourceType.TypeVectorPolygon")
SOURCE_FILE = _first("Qgis.ProcessingSourceType.File", "QgsProcessing.SourceType.TypeFile")
SOURCE_RASTER = _first("Qgis.ProcessingSourceType.Raster", "QgsProcessing.SourceType.TypeRaster")

FIELD_ANY = _first("Qgis.ProcessingFieldParameterDataType.Any", "QgsProcessingParameterField.DataType.Any")
INTEGER = _first("Qgis.ProcessingNumberParameterType.Integer", "QgsProcessingParameterNumber.Type.Integer")
DOUBLE = _first("Qgis.ProcessingNumberParameterType.Double", "QgsProcessingParameterNumber.Type.Double")
FOLDER = _first("Qgis.ProcessingFileParameterBehavior.Folder", "QgsProcessingParameterFile.Behavior.Folder")

ADVANCED = _first("Qgis.ProcessingParameterFlag.Advanced", "QgsProcessingParameterDefinition.Flag.FlagAdvanced")
OPTIONAL = _first("Qgis.ProcessingParameterFlag.Optional", "QgsProcessingParameterDefinition.Flag.FlagOptional")
CAN_CANCEL = _first("Qgis.ProcessingAlgorithmFlag.CanCancel", "QgsProcessingAlgorithm.Flag.FlagCanCancel")
SUPPORTS_BATCH = _first("Qgis.ProcessingAlgorithmFlag.SupportsBatch", "QgsProcessingAlgorithm.Flag.FlagSupportsBatch")
NO_THREADING = _first("Qgis.ProcessingAlgorithmFlag.NoThreading", "QgsProcessingAlgorithm.Flag.FlagNoThreading")

POINT_GEOMETRY = _first("Qgis.GeometryType.Point", "QgsWkbTypes.GeometryType.PointGeometry")
POLYGON_GEOMETRY = _first("Qgis.GeometryType.Polygon", "QgsWkbTypes.GeometryType.PolygonGeometry")

SKIP_GEOMETRY_CHECKS = _first(
    "Qgis.ProcessingFeatureSourceFlag.SkipGeometryValidityChecks",
    "QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks",
)
NO_GEOMETRY = _first("Qgis.FeatureRequestFlag.NoGeometry", "QgsFeatureRequest.Flag.NoGeometry")
FAST_INSERT = _first("QgsFeatureSink.Flag.FastInsert")
WRITER_NO_ERROR = _first("QgsVectorFileWriter.WriterError.NoError")
RAMP_INTERPOLATED = _first("Qgis.ShaderInterpolationMethod.Linear", "QgsColorRampShader.Type.Interpolated")
RAMP_EXACT = _first("Qgis.ShaderInterpolationMethod.Exact", "QgsColorRampShader.Type.Exact")
CLASSIFY_CONTINUOUS = _first(
    "Qgis.ShaderClassificationMethod.Continuous", "QgsColorRampShader.ClassificationMode.Continuous"
)
INFO = _first("Qgis.MessageLevel.Info")
WARNING = _first("Qgis.MessageLevel.Warning")

NO_LIMITS = _first("Qgis.RasterRangeLimit.NotSet", "QgsRasterMinMaxOrigin.Limits.None_")
STRETCH_TO_LIMITS = _first("QgsContrastEnhancement.ContrastEnhancementAlgorithm.StretchToMinimumMaximum")

STATIC_PROPERTY = _first("Qgis.PropertyType.Static", "QgsProperty.Type.StaticProperty", "QgsProperty.StaticProperty")


def long_integer() -> Any:
    """Return the type of a field of 64-bit whole numbers: QMetaType's from QGIS 3.38 on, QVariant's before."""
    from qgis.PyQt import QtCore

    if Qgis.QGIS_VERSION_INT >= 33800:
        return QtCore.QMetaType.Type.LongLong
    return QtCore.QVariant.LongLong


def is_null(value: Any) -> bool:
    """Tell whether a parameter value stands for "not given": None, or QGIS's NULL."""
    return value is None or (isinstance(value, type(NULL)) and value == NULL)


def temporary_folders(context: Any) -> tuple[str, ...]:
    """Return the folders whose files do not outlive this session: Processing's, and the context's own (QGIS 3.32)."""
    own = context.temporaryFolder() if hasattr(context, "temporaryFolder") else ""
    return tuple(folder for folder in (QgsProcessingUtils.tempFolder(), own) if folder)
