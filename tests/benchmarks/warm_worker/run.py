"""What a warm worker costs: time to its first message, and memory over 100 jobs. Run by hand: ``make bench``.

A small part of the demo scene is mapped again and again with a network trained for one epoch. Prints the figures and
exits 1 when one is missed:

- the worker says hello within 0.3 s of its start (no torch yet),
- from the call to the first progress message of a warm job: median of 10 under 0.5 s,
- memory after job 100 at most 5 % above that after job 20.

Arguments: the interpreter of the engine's environment (default: this one).
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from deepscape.tasks import client, protocol
from deepscape.tasks.jobs import (
    Classify,
    ExtractPatches,
    RasterSource,
    SelectVectorSamples,
    TrainClassifier,
    VectorSource,
)

DATA = Path(__file__).resolve().parents[3] / "demo" / "data"
JOBS = 100
EARLY = 20


def train(run, folder):
    """Return the path of a network for the demo scene, trained for one epoch."""
    scene = RasterSource(str(DATA / "sen2.tif"))
    polygons = VectorSource(str(DATA / "train_polygons.gpkg"))
    points, patches, model = (str(folder / name) for name in ("points.gpkg", "patches", "model.safetensors"))
    run(SelectVectorSamples(polygons, "class_id", scene, points, count=50))
    run(ExtractPatches(scene, VectorSource(points), "class_id", patches, patch_size=7, edge="reflect"))
    run(TrainClassifier(patches, model, epochs=1, patience=0, validation_share=0.0, device_choice="cpu"))
    return model


def first_hello_s(interpreter, folder):
    begun = time.perf_counter()
    worker = client.WorkerProcess(interpreter, "cpu", client.RUN_WORKER, str(folder))
    worker.wait_ready(lambda: False)
    seconds = time.perf_counter() - begun
    worker.end(1.0)
    return seconds


def main():
    interpreter = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pool = client.pool()
        memory = []
        first = []

        # The pool's own reading of the final message is what decides on a worker's life, so it is what we look at.
        grew = client.WorkerProcess.grew

        def note(worker, kind, idle_bytes):
            memory.append(idle_bytes)
            return grew(worker, kind, idle_bytes)

        client.WorkerProcess.grew = note

        def run(job):
            begun = time.perf_counter()
            said = []

            def listen(message):
                if message["type"] == "progress" and not said:
                    said.append(time.perf_counter() - begun)

            result = client.run_job(job, interpreter=interpreter, on_message=listen, scratch=name)
            first.append(said[0])
            return result

        hello = statistics.median(first_hello_s(interpreter, folder) for _ in range(5))
        model = train(run, folder)
        pool.shutdown()
        memory.clear()
        first.clear()
        job = Classify(RasterSource(str(DATA / "sen2.tif")), model, str(folder / "map.tif"), box=(0, 0, 128, 128))
        pids = set()
        for _ in range(JOBS):
            run(job)
            pids.update(pool.pids())
        pool.shutdown()
    growth = memory[JOBS - 1] / memory[EARLY - 1] - 1
    warm = statistics.median(first[1:11])
    print(f"protocol {protocol.PROTOCOL}, {JOBS} jobs in {len(pids)} worker")
    print(f"hello after the start: median of 5 {hello:.3f} s (limit 0.3)")
    print(f"first progress message: cold {first[0]:.2f} s, warm median of 10 {warm * 1000:.1f} ms (limit 500)")
    print("memory after job " + ", ".join(f"{n}: {memory[n - 1] / 2**20:.0f} MiB" for n in (1, EARLY, 50, JOBS)))
    print(f"growth from job {EARLY} to job {JOBS}: {growth:+.1%} (limit +5 %)")
    return 0 if hello <= 0.3 and warm <= 0.5 and growth <= 0.05 and len(pids) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
