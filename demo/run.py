"""The main job on the bundled real data, as a user would run it: `make demo`.

Needs QGIS's Python. From a Sentinel-2 scene of the Amazon and 13 polygons to a styled land-cover map, its accuracy
inside 12 other polygons that training never saw, and the same for simpler methods over three seeds. Every step is an
algorithm of the plugin, run through QGIS Processing with a real worker. Writes ``demo/output/``.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess  # nosec B404 - starts the engine's own interpreter on demo/baselines.py
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "demo" / "data"
OUTPUT = ROOT / "demo" / "output"
SEEDS = (0, 1, 2)
EPOCHS = 30
PATCH_SIZE = 7
TITLE = "Land cover on the Amazon, Sentinel-2"

sys.path.insert(0, str(ROOT / "demo"))
from session import run, start_qgis  # noqa: E402


def engine(*arguments):
    """Run demo/baselines.py in the engine's environment and return its answer."""
    from deepscape.tasks.environment import find_engine
    from deepscape.tasks.processes import clean_environment

    command = [find_engine("").python, "-I", str(ROOT / "demo" / "baselines.py"), *map(str, arguments)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment(os.environ))
    return json.loads(answer.stdout.splitlines()[-1])


def prepare(scratch):
    """Select every labelled pixel of both polygon layers, and cut the patches."""
    datasets = {}
    for role in ("train", "validation"):
        samples = run(
            "selectvectorsamples",
            INPUT=str(DATA / f"{role}_polygons.gpkg"),
            FIELD="class_id",
            RASTER=str(DATA / "sen2.tif"),
            STRATEGY="all",
            LEGEND=str(DATA / "legend.json"),
            OUTPUT=str(scratch / f"{role}_samples.gpkg"),
        )
        patches = run(
            "extractpatches",
            INPUT=str(DATA / "sen2.tif"),
            SAMPLES=samples["OUTPUT"],
            FIELD="class_id",
            PATCH_SIZE=PATCH_SIZE,
            EDGE="reflect",
            LEGEND=str(DATA / "legend.json"),
            OUTPUT=str(scratch / f"{role}_patches"),
            FOOTPRINTS=str(scratch / f"{role}_footprints.gpkg"),
        )
        print(f"  {role}: {patches['ACCEPTED']} patches of {PATCH_SIZE} x {PATCH_SIZE} pixels, 12 bands")
        datasets[role] = patches["OUTPUT"]
    return datasets


def per_class_f1(path):
    """Return the F1 of each class from a confusion matrix in the reference system's layout."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    reference = lines[0].split(":")[1].split(",")
    produced = lines[1].split(":")[1].split(",")
    rows = [[int(cell) for cell in row] for row in csv.reader(lines[2:])]
    scores = {}
    for i, value in enumerate(reference):
        j = produced.index(value) if value in produced else None
        hits = rows[i][j] if j is not None else 0
        total = sum(rows[i]) + (sum(row[j] for row in rows) if j is not None else 0)
        scores[value] = 2 * hits / total if total else None
    return scores


def map_and_assess(model, scratch, name, **outputs):
    """Map the scene with a model and compare the map with the polygons that training never saw."""
    target = outputs.pop("OUTPUT", str(scratch / f"{name}.tif"))
    mapped = run("classify", INPUT=str(DATA / "sen2.tif"), MODEL=model, OUTPUT=target, **outputs)
    matrix = str(scratch / f"{name}.csv")
    scores = run(
        "assess",
        INPUT=mapped["OUTPUT"],
        REFERENCE_SAMPLES=str(DATA / "validation_polygons.gpkg"),
        FIELD="class_id",
        OUTPUT=str(OUTPUT / "accuracy.html") if target == str(OUTPUT / "map.tif") else str(scratch / f"{name}.html"),
        MATRIX=matrix,
    )
    return mapped["OUTPUT"], {
        "overall_accuracy": scores["OVERALL_ACCURACY"],
        "kappa": scores["KAPPA"],
        "f1": per_class_f1(matrix),
        "samples": scores["SAMPLE_COUNT"],
    }


def network(method, datasets, scratch, seed):
    """Train one network for a fixed number of epochs, map, assess; the validation polygons are used at the end only."""
    final = method == "compact_cnn" and seed == SEEDS[0]
    name = f"{method}_{seed}"
    model = run(
        "trainclassifier",
        TRAINING=datasets["train"],
        TEST=datasets["validation"],
        VALIDATION_SHARE=0,
        NETWORK=method,
        EPOCHS=EPOCHS,
        PATIENCE=0,
        SEED=seed,
        OUTPUT=str(OUTPUT / "model.safetensors" if final else scratch / f"{name}.safetensors"),
        REPORT=str(OUTPUT / "report.html" if final else scratch / f"{name}_training.html"),
    )["OUTPUT"]
    extra = {"OUTPUT": str(OUTPUT / "map.tif"), "CONFIDENCE": str(OUTPUT / "confidence.tif")} if final else {}
    return map_and_assess(model, scratch, name, **extra)


def forest(features, datasets, scratch, seed):
    """The same for a Random Forest on pixel values, or on them with the mean and deviation of the patch."""
    final = features == "window" and seed == SEEDS[0]
    name = f"forest_{features}_{seed}"
    model = run(
        "trainrandomforest",
        TRAINING=datasets["train"],
        TEST=datasets["validation"],
        VALIDATION_SHARE=0,
        FEATURES=features,
        SEED=seed,
        OUTPUT=str(OUTPUT / "forest.safetensors" if final else scratch / f"{name}.safetensors"),
    )["OUTPUT"]
    return map_and_assess(model, scratch, name)


METHODS = {
    "Compact CNN, 7 x 7": lambda *a: network("compact_cnn", *a),
    "Pixel network, 1 x 1": lambda *a: network("pixel_network", *a),
    "Random Forest, pixel": lambda *a: forest("pixel", *a),
    "Random Forest, window": lambda *a: forest("window", *a),
    "Logistic regression": lambda datasets, scratch, seed: (
        None,
        engine("logistic", datasets["train"], datasets["validation"], seed),
    ),
}


def compare(datasets, scratch):
    """Run every method with every seed; returns the rows of summary.json and the maps of the Compact CNN."""
    rows, maps = [], []
    for method, action in METHODS.items():
        for seed in SEEDS:
            start = time.monotonic()
            path, scores = action(datasets, scratch, seed)
            scores = {"method": method, "seed": seed, "seconds": round(time.monotonic() - start, 2), **scores}
            rows.append(scores)
            print(
                f"  {method:24s} seed {seed}   overall accuracy {scores['overall_accuracy']:.4f}   "
                f"kappa {scores['kappa']:.4f}   {scores['seconds']:5.1f} s"
            )
            if method.startswith("Compact CNN"):
                maps.append(path)
    return rows, maps


def main():
    """Run the demo."""
    start = time.monotonic()
    OUTPUT.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="deepscape-demo-"))
    application, plugin = start_qgis(str(scratch / "profile"))
    try:
        print("Samples and patches")
        datasets = prepare(scratch)
        print(f"Training for {EPOCHS} epochs, mapping and assessing, three seeds each")
        rows, maps = compare(datasets, scratch)
        figures = engine("maps", DATA / "sen2.tif", *maps)
        summary = {"methods": rows, "maps": figures, "epochs": EPOCHS, "patch_size": PATCH_SIZE, "polygons": 12}
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        (OUTPUT / "summary.json").write_text(text + "\n", encoding="utf-8")

        import layout

        layout.project_and_picture(OUTPUT, DATA, TITLE)
        report(rows, figures)
        print(f"Ready after {time.monotonic() - start:.0f} s.")
        print(f"The map: {OUTPUT / 'map.tif'}, drawn in {OUTPUT / 'map.png'}; open {OUTPUT / 'project.qgz'} in QGIS.")
    finally:
        plugin.unload()
        application.exitQgis()
        shutil.rmtree(scratch, ignore_errors=True)


def report(rows, figures):
    """Print the accuracy of the map, and how far it carries."""
    kappas = [row["kappa"] for row in rows if row["method"].startswith("Compact CNN")]
    print("Accuracy")
    print(
        f"  Kappa of the map inside 12 validation polygons: {', '.join(f'{kappa:.3f}' for kappa in kappas)} "
        f"(seeds {', '.join(map(str, SEEDS))})."
    )
    print(
        "  Twelve polygons of one scene are twelve places, drawn where the classes are clear: this number says that\n"
        "  such places are told apart, not how good the map is elsewhere, at class edges or in another scene."
    )
    print(f"  Pixels on which the three seeds' maps disagree: {100 * figures['disagreement']:.1f} % of the scene.")
    print(
        f"  Error against the spectral water mask within 4 pixels of its edge ({figures['edge_pixels']} pixels): "
        f"{', '.join(f'{100 * error:.1f} %' for error in figures['edge_error'])}."
    )


if __name__ == "__main__":
    main()
