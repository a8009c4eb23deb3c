"""Buildings on an orthophoto, as a user would map them: `make demo-buildings`.

Needs QGIS's Python. From an orthophoto, the footprints in its north and a U-Net to a map of buildings, footprints with
their areas, and the accuracy in the south-east, which neither the training nor the choice of anything has seen. Every
step is an algorithm, run through QGIS Processing with a real worker. Writes ``demo/output-buildings/``.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "demo" / "data-buildings"
OUTPUT = ROOT / "demo" / "output-buildings"
TITLE = "Buildings of Banepa, Nepal"
EPOCHS, WINDOWS, SIZE, WIDTH = 20, 160, 128, 16
LEAST_AREA = 8.0  # square metres of a footprint
# Pixels on a side of the blocks that the report's intervals draw again: 17 m on the ground, more than most buildings.
BLOCK = 64

sys.path.insert(0, str(ROOT / "demo"))
from session import run, start_qgis  # noqa: E402


def main():
    """Run the demo."""
    start = time.monotonic()
    OUTPUT.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="deepscape-demo-"))
    application, plugin = start_qgis(str(scratch / "profile"))
    try:
        print(f"Training a U-Net of width {WIDTH} in the north")
        trained = train()
        print("Mapping, and drawing footprints")
        mapped = run(
            "classify",
            INPUT=str(DATA / "ortho.tif"),
            MODEL=trained["OUTPUT"],
            TTA="full",
            OUTPUT=str(OUTPUT / "map.tif"),
            PROBABILITIES=str(OUTPUT / "probabilities.tif"),
        )
        footprints = run(
            "vectorise",
            INPUT=mapped["OUTPUT"],
            CLASSES="1",
            MIN_AREA=LEAST_AREA,
            OUTPUT=str(OUTPUT / "buildings.gpkg"),
        )
        print("Assessing the map in the test area")
        assessed = run(
            "assess",
            INPUT=mapped["OUTPUT"],
            REFERENCE=reference(scratch),
            DESIGN="clusters",
            BLOCK_SIZE=BLOCK,
            OUTPUT=str(OUTPUT / "accuracy.html"),
            MATRIX=str(OUTPUT / "confusion.csv"),
        )
        summary = figures(trained, footprints, assessed)
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        (OUTPUT / "summary.json").write_text(text + "\n", encoding="utf-8")

        import layout

        layout.buildings_project_and_picture(OUTPUT, DATA, TITLE)
        report(summary)
        print(f"Ready after {time.monotonic() - start:.0f} s.")
        print(f"The map: {OUTPUT / 'map.tif'}, drawn in {OUTPUT / 'map.png'}; open {OUTPUT / 'project.qgz'} in QGIS.")
        print(
            f"Footprints: {OUTPUT / 'buildings.gpkg'}; reports: {OUTPUT / 'training.html'}, {OUTPUT / 'accuracy.html'}."
        )
    finally:
        plugin.unload()
        application.exitQgis()
        shutil.rmtree(scratch, ignore_errors=True)


def train():
    """Train on the orthophoto itself; the west of the south chooses the threshold.

    The areas come filtered, as by Layer > Filter in QGIS: with the test area the training would score it too, and the
    map of it shall be scored once, at the end.
    """
    return run(
        "trainsegmenter",
        told=("epochs take", "cross an area", "From a probability", "Epoch"),
        INPUT=str(DATA / "ortho.tif"),
        LABEL_FEATURES=str(DATA / "buildings.gpkg"),
        BACKGROUND=True,
        AREAS=f"{DATA / 'areas.gpkg'}|subset=split <> 'test'",
        PATCH_SIZE=SIZE,
        WINDOWS=WINDOWS,
        NETWORK="unet",
        WIDTH=WIDTH,
        EPOCHS=EPOCHS,
        PATIENCE=0,
        CLASS_WEIGHTS="none",
        LEGEND=str(DATA / "legend.json"),
        OUTPUT=str(OUTPUT / "model.safetensors"),
        REPORT=str(OUTPUT / "training.html"),
    )


def reference(scratch):
    """Burn the footprints of the test area; what lies across its border, and all outside, is no-data."""
    lines = run("native:polygonstolines", INPUT=str(DATA / "areas.gpkg"), OUTPUT=str(scratch / "lines.gpkg"))
    cut = run(
        "native:extractbylocation",
        INPUT=str(DATA / "buildings.gpkg"),
        PREDICATE=[0],
        INTERSECT=lines["OUTPUT"],
        OUTPUT=str(scratch / "cut.gpkg"),
    )
    from qgis.core import QgsRasterLayer

    scene = QgsRasterLayer(str(DATA / "ortho.tif"), "scene")
    box = scene.extent()
    extent = f"{box.xMinimum()},{box.xMaximum()},{box.yMinimum()},{box.yMaximum()} [{scene.crs().authid()}]"
    burnt = run(
        "gdal:rasterize",
        INPUT=str(DATA / "buildings.gpkg"),
        BURN=1,
        UNITS=0,
        WIDTH=scene.width(),
        HEIGHT=scene.height(),
        EXTENT=extent,
        INIT=0,
        DATA_TYPE=0,
        OUTPUT=str(scratch / "burnt.tif"),
    )["OUTPUT"]
    run("gdal:rasterize_over_fixed_value", INPUT=cut["OUTPUT"], INPUT_RASTER=burnt, BURN=255)
    test = run(
        "native:extractbyattribute",
        INPUT=str(DATA / "areas.gpkg"),
        FIELD="split",
        OPERATOR=0,
        VALUE="test",
        OUTPUT=str(scratch / "test.gpkg"),
    )
    return run(
        "gdal:cliprasterbymasklayer",
        INPUT=burnt,
        MASK=test["OUTPUT"],
        NODATA=255,
        CROP_TO_CUTLINE=False,
        KEEP_RESOLUTION=True,
        OUTPUT=str(OUTPUT / "reference.tif"),
    )["OUTPUT"]


def figures(trained, footprints, assessed):
    """Return what summary.json says."""
    lines = (OUTPUT / "confusion.csv").read_text(encoding="utf-8").splitlines()
    # Rows are the reference: background and building.
    (right, wrong), (missed, found) = [[int(cell) for cell in line.split(",")] for line in lines[2:4]]
    return {
        "iou": found / (found + wrong + missed),
        "f1": 2 * found / (2 * found + wrong + missed),
        "overall_accuracy": assessed["OVERALL_ACCURACY"],
        "kappa": assessed["KAPPA"],
        "pixels": right + wrong + missed + found,
        "training": {"accuracy_set": trained["ACCURACY_SET"], "mean_iou": trained["MEAN_IOU"]},
        "footprints": footprints["POLYGON_COUNT"],
        "footprints_m2": footprints["AREA"],
    }


def report(summary):
    """Print the accuracy."""
    print("Accuracy of the map in the test area, which was used for nothing else")
    print(
        f"  IoU of buildings {summary['iou']:.3f}, F1 {summary['f1']:.3f}, overall accuracy "
        f"{summary['overall_accuracy']:.3f}, kappa {summary['kappa']:.3f} ({summary['pixels']:,} pixels)."
    )
    print(
        f"  {summary['footprints']:.0f} footprints on the whole image, {summary['footprints_m2']:,.0f} square metres."
    )


if __name__ == "__main__":
    main()
