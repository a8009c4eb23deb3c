"""The parameters of one run as plain values: what an algorithm's `job` method reads.

Layers were snapshotted by `prepareAlgorithm`; here, in the algorithm's own thread, those that are no plain file are
exported, and the destinations become paths.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any, Dict, Mapping, Optional, Tuple

from qgis.core import QgsProcessingParameterFeatureSink, QgsProcessingParameterRasterDestination, QgsProperty

from ..tasks import jobfiles
from ..tasks.classtable import Legend
from ..tasks.errors import BadInput
from ..tasks.jobs import Extent, RasterSource, VectorSource
from . import compat, rasterexport, sinks
from .checks import chosen_words
from .destinations import complete_destination
from .snapshots import RasterSnapshot, VectorSnapshot, is_given


class Values:
    """The values of one run.

    Attributes:
        sink_paths: name of a sink -> the GeoPackage that the engine writes, to be copied into the sink.
        destinations: name of a raster, file or folder output -> its path.
        exports: the GeoPackage with the exported inputs; empty when nothing was exported.
        raster_exports: the GeoTIFFs of rasters that the engine could not open.
    """

    def __init__(
        self, algorithm: Any, parameters: Mapping[str, Any], context: Any, feedback: Any, snapshots: Mapping[str, Any]
    ) -> None:
        """Begin a run; `close` ends it."""
        self._algorithm = algorithm
        self.parameters = dict(parameters)
        self._context = context
        self._feedback = feedback
        self._snapshots = snapshots
        self.scratch = tempfile.mkdtemp(prefix="deepscape-", dir=compat.temporary_folders(context)[0])
        self.sink_paths: Dict[str, str] = {}
        self.destinations: Dict[str, str] = {}
        self.exports = ""
        self.raster_exports: Dict[RasterSnapshot, str] = {}
        for definition in algorithm.destinationParameterDefinitions():
            complete_destination(self.parameters, definition)

    def close(self) -> None:
        """Remove the temporary files."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    # --- one value ---

    def given(self, name: str) -> bool:
        """Tell whether the parameter has a value."""
        return is_given(self.parameters.get(name))

    def integer(self, name: str) -> int:
        """Return a whole number."""
        return int(self._algorithm.parameterAsInt(self.parameters, name, self._context))

    def real(self, name: str) -> float:
        """Return a number."""
        return float(self._algorithm.parameterAsDouble(self.parameters, name, self._context))

    def optional_integer(self, name: str) -> Optional[int]:
        """Return a whole number, or None when it is not given (QGIS gives 0, which may well be meant)."""
        return self.integer(name) if self.given(name) else None

    def optional_real(self, name: str) -> Optional[float]:
        """Return a number, or None when it is not given."""
        return self.real(name) if self.given(name) else None

    def choice(self, name: str) -> str:
        """Return the word of an enumeration."""
        return str(self._algorithm.parameterAsEnumString(self._worded(name), name, self._context))

    def choices(self, name: str) -> Tuple[str, ...]:
        """Return the words of an enumeration that takes several; none when it is not given."""
        if not self.given(name):
            return ()
        # QGIS gives one empty word where there is none.
        return tuple(filter(None, self._algorithm.parameterAsEnumStrings(self._worded(name), name, self._context)))

    def _worded(self, name: str) -> Dict[str, Any]:
        """Return the parameters with the words of an enumeration where it is given by numbers."""
        value = self.parameters.get(name)
        if not is_given(value) or isinstance(value, QgsProperty):
            return self.parameters
        definition = self._algorithm.parameterDefinition(name)
        words = chosen_words(definition, value)
        return {**self.parameters, name: words if definition.allowMultiple() else words[0]}

    def flag(self, name: str) -> bool:
        """Return yes or no."""
        return bool(self._algorithm.parameterAsBoolean(self.parameters, name, self._context))

    def text(self, name: str) -> str:
        """Return a text, empty when it is not given."""
        return str(self._algorithm.parameterAsString(self.parameters, name, self._context)) if self.given(name) else ""

    def field(self, name: str, layer: str = "") -> str:
        """Return the name of a field; its default, or empty, when it is not given.

        Where the vector input ``layer`` has no such field, it is the one by whose values that layer is styled.
        """
        if not self.given(name):
            # QGIS 3.22 has no field for a missing value, whatever its default.
            default = str(self._algorithm.parameterDefinition(name).defaultValue() or "")
            shot = self._snapshots.get(layer)
            if not isinstance(shot, VectorSnapshot) or shot.shows(default) or not shot.shows(shot.category_field):
                return default
            self._feedback.pushInfo(f"{name}: {shot.category_field}, by whose values '{shot.label}' is styled.")
            return shot.category_field
        found = self._algorithm.parameterAsFields(self.parameters, name, self._context)
        return str(found[0]) if found else ""

    def path(self, name: str) -> str:
        """Return the absolute path of an input file or folder, empty when it is not given."""
        value = self.text(name)
        return os.path.abspath(value) if value else ""

    def files(self, name: str) -> Tuple[str, ...]:
        """Return the absolute paths of a list of input files."""
        found = self._algorithm.parameterAsFileList(self.parameters, name, self._context) if self.given(name) else []
        return tuple(os.path.abspath(path) for path in found)

    def integers(self, name: str) -> Tuple[int, ...]:
        """Return the whole numbers of a list as in "1, 2, 5"."""
        return whole_numbers(name, self.text(name).replace(";", ",").split(","))

    def numbers_by_class(self, name: str) -> Dict[str, float]:
        """Return the numbers of a list as in "3:0.6, 5:0.95" by class value."""
        found: Dict[str, float] = {}
        for part in filter(None, (part.strip() for part in self.text(name).replace(";", ",").split(","))):
            value, _, number = (piece.strip() for piece in part.partition(":"))
            try:
                found[str(int(value))] = float(number)
            except ValueError:
                raise BadInput(
                    f"{name} holds '{part}', which is not of the form class:number.", "Write it as 3:0.6, 5:0.95."
                ) from None
        return found

    def reals(self, name: str) -> Tuple[float, ...]:
        """Return the numbers of a list as in "0.5, 20"."""
        parts = [part.strip() for part in self.text(name).replace(";", ",").split(",")]
        try:
            return tuple(float(part) for part in parts if part)
        except ValueError:
            raise BadInput(
                f"{name} '{self.text(name)}' is no list of numbers.", "Separate numbers by commas: 700, 20, 300."
            ) from None

    def box(self, name: str) -> Optional[Tuple[int, int, int, int]]:
        """Return the box x:y:w:h in pixels, or None when it is not given."""
        text = self.text(name).strip()
        if not text:
            return None
        parts = text.split(":")
        if len(parts) != 4 or not all(part.strip().lstrip("-").isdigit() for part in parts):
            raise BadInput(
                f"{name} '{text}' is not of the form x:y:w:h.",
                "Give column, row, width and height in whole pixels, e.g. 100:50:512:512.",
            )
        left, top, width, height = (int(part) for part in parts)
        return left, top, width, height

    # --- inputs ---

    def extent(self, name: str) -> Optional[Extent]:
        """Return a rectangle in its own CRS, or None when it is not given."""
        return self._snapshots.get(name)

    def raster(
        self,
        name: str,
        stack: str = "",
        bands: str = "",
        nodata: str = "",
        required: bool = True,
        expressions: str = "",
    ) -> Optional[RasterSource]:
        """Return a raster source; None when it is not given and not required. All are names of parameters."""
        shot: Optional[RasterSnapshot] = self._snapshots.get(name)
        if shot is None:
            if required:
                raise BadInput(f"{name} is missing.", "Choose a raster layer.")
            return None
        if shot.overridden_crs:
            self._feedback.pushWarning(
                f"'{shot.label}' is shown in {shot.overridden_crs}, not in the CRS of its file: the file's is used."
            )
        further = self._snapshots.get(stack) or () if stack else ()
        chosen = self._algorithm.parameterAsInts(self.parameters, bands, self._context) if bands else []
        return RasterSource(
            path=self._openable(shot),
            stack=tuple(self._openable(other) for other in further),
            bands=tuple(chosen) if bands and self.given(bands) else (),
            nodata=self.optional_real(nodata) if nodata else None,
            crs=shot.crs,
            label=shot.label,
            expressions=self.text(expressions) if expressions else "",
        )

    def _openable(self, shot: RasterSnapshot) -> str:
        """Return what the engine opens: the raster, or a copy that is made where it has no driver for it."""
        if not shot.foreign:
            return _absolute(shot.path)
        if shot not in self.raster_exports:
            target = os.path.join(self.scratch, f"input{len(self.raster_exports) + 1}.tif")
            self._feedback.pushInfo(f"'{shot.label}' is passed to the engine as a copy.")
            rasterexport.export(_absolute(shot.path), shot.options, target, shot.label, self._feedback)
            self.raster_exports[shot] = target
        return self.raster_exports[shot]

    def vector(self, name: str, required: bool = True) -> Optional[VectorSource]:
        """Return a vector source, exported when its path does not say all; None when not given and not required."""
        shot: Optional[VectorSnapshot] = self._snapshots.get(name)
        if shot is None:
            if required:
                raise BadInput(f"{name} is missing.", "Choose a vector layer.")
            return None
        if shot.file is not None:
            return VectorSource(_absolute(shot.file.path), shot.file.layer, shot.file.crs, shot.file.label)
        self.exports = os.path.join(self.scratch, "inputs.gpkg")
        self._feedback.pushInfo(f"'{shot.label}' is passed to the engine as a copy.")
        return sinks.export(shot.source, self.exports, name.lower(), shot.label, self._feedback)

    def raster_or_vector(self, name: str) -> Tuple[Optional[RasterSource], Optional[VectorSource]]:
        """Return an optional layer of either kind: the one as its source, the other None."""
        if isinstance(self._snapshots.get(name), RasterSnapshot):
            return self.raster(name), None
        return None, self.vector(name, required=False)

    def legend(self, layer: str = "", field: str = "", files: bool = True) -> Legend:
        """Return where names and colours come from: LEGEND, NOMENCLATURE and the style of the input ``layer``.

        Args:
            layer: name of a raster or vector parameter.
            field: name of the parameter with the class field of a vector layer.
            files: the algorithm has the parameters LEGEND and NOMENCLATURE.
        """
        shot = self._snapshots.get(layer)
        classes = ()
        if isinstance(shot, RasterSnapshot):
            classes = shot.classes
        elif isinstance(shot, VectorSnapshot):
            classes = shot.classes_of(self.field(field, layer))
        if not files:
            return Legend(layer_classes=classes)
        return Legend(self.path("LEGEND"), self.choice("NOMENCLATURE"), classes)

    def label(self, name: str) -> str:
        """Return what the user calls an input layer; empty without one."""
        return str(getattr(self._snapshots.get(name), "label", ""))

    def categories(self, name: str) -> Tuple[str, Tuple[Tuple[Any, str, str], ...]]:
        """Return the field and the categories of a vector input's style."""
        shot = self._snapshots.get(name)
        return (shot.category_field, shot.categories) if isinstance(shot, VectorSnapshot) else ("", ())

    # --- outputs ---

    def output(self, name: str) -> str:
        """Return the path that the engine writes an output to; empty when it is not wanted."""
        if not self.given(name):
            return ""
        definition = self._algorithm.parameterDefinition(name)
        if isinstance(definition, QgsProcessingParameterFeatureSink):
            self.sink_paths[name] = os.path.join(self.scratch, f"{name.lower()}.gpkg")
            return self.sink_paths[name]
        if isinstance(definition, QgsProcessingParameterRasterDestination):
            path = self._algorithm.parameterAsOutputLayer(self.parameters, name, self._context)
        else:
            path = self._algorithm.parameterAsFileOutput(self.parameters, name, self._context)
        self.destinations[name] = path
        return str(path)

    def stays(self, path: str) -> bool:
        """Tell whether the file of an output outlives this session of QGIS."""
        return not jobfiles.is_temporary(path, compat.temporary_folders(self._context))

    def continues(self, path: str) -> bool:
        """Tell whether the same run, interrupted, can continue: its output stays, and no input is a copy of this run's.

        Ask when all inputs were asked for.
        """
        return self.stays(path) and not self.exports and not self.raster_exports


def whole_numbers(name: str, parts: Any) -> Tuple[int, ...]:
    """Return texts as whole numbers; empty ones are left out.

    Raises:
        BadInput: one is no whole number; names it.
    """
    texts = [str(part).strip() for part in parts]
    wrong = next((text for text in texts if text and not text.lstrip("+-").isdigit()), None)
    if wrong is not None:
        raise BadInput(f"{name} holds '{wrong}', which is no whole number.", "Separate whole numbers by commas: 1,2,5.")
    return tuple(int(text) for text in texts if text)


def _absolute(path: str) -> str:
    """Return a file's absolute path (the engine has another current folder); another GDAL name as it is."""
    return os.path.abspath(path) if os.path.exists(path) else path
