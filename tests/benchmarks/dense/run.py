"""The dense form of the Simple CNN beside patch by patch: speed, and difference from float64, in one run.

Run by `make bench BENCH=tests/benchmarks/dense/run.py`. One prediction per pixel of a scene of one megapixel (1024 x
1024, 4 bands), patches of 16, 6 classes, two threads. Patch by patch in torch is measured on every 40th row and scaled,
in ONNX Runtime on every 10th: each takes many times as long as all the rest. All ways take turns for some rounds, in
each of which a way is repeated for a time; rates are those of the best round, ratios the median of the rounds' own, so
that a busy machine favours none. The reference is the network in float64, patch by patch. Where there is a GPU, torch
is measured there, too.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import onnxruntime
import torch
from deepscape.engine.densify import dense_network
from deepscape.engine.graphexport import export_network
from deepscape.engine.runtimes.graph import PIECE
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context

SIDE, BANDS, CLASSES, SIZE, BATCH, THREADS = 1024, 4, 6, 16, 512, 2
ROWS, COLS = PIECE  # of a window of the dense networks, as the engine takes them
ROUNDS, LEAST_S = 9, 0.6
TORCH_ROWS = range(0, SIDE, 40)
ORT_ROWS = range(0, SIDE, 10)
GOALS = {"torch, patch by patch": 150, "ONNX Runtime, patch by patch": 50}
CLEAR = 1e-4  # of the logits' scale: classes must be equal where the two best differ by more

# Returns the logits (K, rows, SIDE) or, where it is timed, what a map asks for.
Way = Callable[[bool], np.ndarray]


def scene() -> np.ndarray:
    """Return physical values whose margins let every pixel have a whole patch."""
    rng = np.random.default_rng(0)
    side = SIDE + SIZE - 1
    coarse = rng.normal(size=(BANDS, side // 8 + 1, side // 8 + 1)).repeat(8, 1).repeat(8, 2)[:, :side, :side]
    return (1500 + 400 * coarse + 100 * rng.normal(size=coarse.shape)).astype(np.float32)


def patches(values: Any, rows: Sequence[int]) -> Iterator[Tuple[int, Any]]:
    """Yield the patches of rows of pixels in batches, and how many they are."""
    if isinstance(values, torch.Tensor):
        windows = values.unfold(1, SIZE, 1).unfold(2, SIZE, 1)
    else:
        windows = np.lib.stride_tricks.sliding_window_view(values, (SIZE, SIZE), (1, 2))
    for row in rows:
        for start in range(0, SIDE, BATCH):
            batch = windows[:, row, start : start + BATCH]
            if isinstance(values, torch.Tensor):
                yield batch.shape[1], batch.transpose(0, 1).contiguous()
            else:
                yield batch.shape[1], np.ascontiguousarray(batch.swapaxes(0, 1))


def windows(values: Any) -> List[Tuple[int, int, Any]]:
    """Return row, column and values ``(1, C, H, W)`` of the windows of the dense networks."""
    reach = SIZE - 1
    return [
        (row, col, values[None, :, row : min(row + ROWS, SIDE) + reach, col : min(col + COLS, SIDE) + reach])
        for row in range(0, SIDE, ROWS)
        for col in range(0, SIDE, COLS)
    ]


def session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def torch_ways(module: torch.nn.Module, dense: torch.nn.Module, values: torch.Tensor) -> Dict[str, Way]:
    """Return both forms in torch, on the device of the standardised values."""

    def by_patch(_: bool) -> np.ndarray:
        logits = [module(batch) for _, batch in patches(values, TORCH_ROWS)]
        return torch.cat(logits).cpu().numpy().reshape(len(TORCH_ROWS), SIDE, CLASSES).transpose(2, 0, 1)

    def whole(_: bool) -> np.ndarray:
        logits = values.new_empty(CLASSES, SIDE, SIDE)
        for row, col, window in windows(values):
            logits[:, row : row + ROWS, col : col + COLS] = dense(window)[0]
        return logits.cpu().numpy()

    where = "" if values.device.type == "cpu" else f" on {torch.cuda.get_device_name()}"
    return {f"torch{where}, patch by patch": by_patch, f"torch{where}, dense": whole}


def onnx_ways(patch: bytes, dense: bytes, values: np.ndarray) -> Dict[str, Way]:
    """Return both forms in ONNX Runtime; two windows at a time, as the engine does."""
    by_patch_session, dense_session = session(patch, THREADS), session(dense, 1)
    pool = ThreadPoolExecutor(THREADS)

    def by_patch(_: bool) -> np.ndarray:
        logits = [by_patch_session.run(["logits"], {"values": batch})[0] for _, batch in patches(values, ORT_ROWS)]
        return np.concatenate(logits)[:, :, 0, 0].reshape(len(ORT_ROWS), SIDE, CLASSES).transpose(2, 0, 1)

    def whole(timed: bool) -> np.ndarray:
        # A map asks for the classes alone.
        output, found = "logits", np.empty((CLASSES, SIDE, SIDE), np.float32)
        if timed:
            output, found = "classes", np.empty((1, SIDE, SIDE), np.uint8)

        def part(where: Tuple[int, int, np.ndarray]) -> None:
            row, col, window = where
            found[:, row : row + ROWS, col : col + COLS] = dense_session.run(
                [output], {"values": np.ascontiguousarray(window)}
            )[0]

        list(pool.map(part, windows(values)))
        return found

    return {"ONNX Runtime, patch by patch": by_patch, "ONNX Runtime, dense": whole}


def reference(module: torch.nn.Module, values: np.ndarray, card: Card) -> np.ndarray:
    """Return the float64 logits ``(K, rows, SIDE)`` of the rows that ONNX Runtime maps patch by patch."""
    bands = card.sources[0].bands
    mean, std = (np.array([getattr(band, name) for band in bands])[:, None, None] for name in ("mean", "std"))
    exact = torch.from_numpy((values.astype(np.float64) - mean) / std)
    module = module.double()
    logits = torch.cat([module(batch) for _, batch in patches(exact, ORT_ROWS)]).numpy()
    module.float()
    return logits.reshape(len(ORT_ROWS), SIDE, CLASSES).transpose(2, 0, 1)


def compared(found: np.ndarray, exact: np.ndarray) -> Tuple[float, int]:
    """Return the largest difference of logits as a share of their scale, and the classes that differ where clear."""
    if found.shape[1] == SIDE:
        found = found[:, list(ORT_ROWS)]
    if found.shape[1] != exact.shape[1]:
        exact = exact[:, [ORT_ROWS.index(row) for row in TORCH_ROWS]]
    scale = np.abs(exact).max()
    best = np.sort(exact, axis=0)
    clear = best[-1] - best[-2] > CLEAR * scale
    return float(np.abs(found - exact).max() / scale), int((found.argmax(0) != exact.argmax(0))[clear].sum())


def seconds(ways: Dict[str, Way], results: Dict[str, np.ndarray]) -> Dict[str, List[float]]:
    """Return the seconds per million pixels of each way in each round."""
    results.update({name: way(False) for name, way in ways.items()})
    taken: Dict[str, List[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started, passes, spent = time.perf_counter(), 0, 0.0
            while spent < LEAST_S:
                found = way(True)
                passes, spent = passes + 1, time.perf_counter() - started
            taken[name].append(spent / passes / found[0].size * 1e6)
    return taken


def times_faster(taken: Dict[str, List[float]], name: str, base: str) -> float:
    """Return how many times as fast one way is as another."""
    return float(np.median(np.divide(taken[base], taken[name])))


def main() -> None:
    """Measure, and print the table."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    module = build_network("simple_cnn", BANDS, CLASSES, SIZE).eval()
    bands = tuple(CardBand(f"B{i}", 1500.0, 410.0, 1500.0, 410.0) for i in range(BANDS))
    table = tuple(ClassEntry(value, str(value), "#000000") for value in range(CLASSES))
    card = Card("network", "simple_cnn", (CardSource(SIZE, bands),), table)
    values = scene()
    standardised = (torch.from_numpy(values) - 1500.0) / 410.0
    exported = export_network(module, card, Context())
    dense = dense_network(module, BANDS, SIZE)
    results: Dict[str, np.ndarray] = {}
    with torch.inference_mode():
        exact = reference(module, values, card)
        ways = {**torch_ways(module, dense, standardised), **onnx_ways(exported.patch, exported.dense, values)}
        taken = seconds(ways, results)
        if torch.cuda.is_available():
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            taken.update(seconds(torch_ways(module.cuda(), dense.cuda(), standardised.cuda()), results))
    report(taken, results, exact)


def report(taken: Dict[str, List[float]], results: Dict[str, np.ndarray], exact: np.ndarray) -> None:
    """Print rates, ratios and differences."""
    slow = [name for name in taken if "patch by patch" in name]
    print(f"Simple CNN, {SIZE} x {SIZE} x {BANDS}, {SIDE} x {SIDE} pixels, {THREADS} threads, {ROUNDS} rounds")
    columns: List[str] = ["Mpx/s", *(f"x {name.split(',')[0]} patches" for name in slow), "difference", "flips"]
    print(" " * 34 + "  ".join(columns))
    for name, rounds in taken.items():
        difference, flips = compared(results[name], exact)
        ratios = [f"{times_faster(taken, name, base):.3g}" for base in slow]
        cells = [f"{1 / min(rounds):.4g}", *ratios, f"{difference:.1g}", str(flips)]
        print(f"{name:34}" + "  ".join(cell.rjust(len(column)) for cell, column in zip(cells, columns)))
    for base, goal in GOALS.items():
        ratio = times_faster(taken, "ONNX Runtime, dense", base)
        print(f"ONNX Runtime, dense, against {base}: {ratio:.0f} times (goal {goal}).")
    print(
        f"Differences from float64 as a share of the logits' scale; flips where the two best differ by {CLEAR:g} of it."
    )


if __name__ == "__main__":
    # Patch by patch, torch is faster where its idle threads wait as it likes: asked for before it is imported.
    if os.environ.pop("OMP_WAIT_POLICY", None) and sys.argv[1:] != ["again"]:
        os.execv(sys.executable, [sys.executable, *sys.argv, "again"])
    main()
