"""How fast each installed runtime maps a graph on this machine: measured once, kept beside the graph."""

from __future__ import annotations

import hashlib
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Mapping

from ...tasks.context import Context
from ...tasks.environment.files import read_json, write_json
from .base import Floats, Mask, Runtime, cores

SUFFIX = ".timings.json"
_ROUNDS = 3
_LONG_ENOUGH_S = 5.0


def fastest(
    measures: Mapping[str, Callable[[], float]], names: Mapping[str, str], graph: Path, context: Context
) -> str:
    """Return the key of the fastest runtime, measured where no measurement is kept.

    Args:
        measures: key -> what measures the runtime's million pixels per second; 0 where it does not work.
        names: key -> its name and version: another version is measured anew.
        graph: the file that they evaluate; the measurement is kept beside it.
        context: for the log.
    """
    file, key = graph.with_name(graph.name + SUFFIX), machine_key(context)
    kept = read_json(file)
    digest = "sha256:" + hashlib.sha256(graph.read_bytes()).hexdigest()
    known = kept.get(key, {}) if kept.get("graph") == digest else {}
    rates = {name: known.get(name) for name in names.values()}
    if not all(isinstance(rate, float) for rate in rates.values()):
        context.progress(0, 1, "Timing the runtimes", "")
        rates = {names[each]: round(measure(), 4) for each, measure in measures.items()}
        # What did not work may work next time.
        measured = {name: rate for name, rate in rates.items() if rate}
        write_json(file, {**(kept if kept.get("graph") == digest else {}), "graph": digest, key: measured})
    shown = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    context.log(f"Million pixels per second on this machine: {shown}; the faster one maps.")
    return max(names, key=lambda each: rates[names[each]] or 0.0)


def rate_of(runtime: Runtime, values: Floats, wanted: Mask, context: Context) -> float:
    """Return the million pixels per second of a runtime that does as many calls at a time as suit it; best of three."""
    best, begun = 0.0, time.perf_counter()
    with ThreadPoolExecutor(runtime.beside) as pool:
        # The first round compiles kernels and takes memory; it does not count.
        for number in range(_ROUNDS + 1):
            context.check()
            started = time.perf_counter()
            calls = [pool.submit(runtime.best, values, wanted) for _ in range(runtime.beside)]
            for call in calls:
                call.result()
            seconds = time.perf_counter() - started
            if number:
                best = max(best, runtime.beside * wanted.size / seconds / 1e6)
            if best and time.perf_counter() - begun > _LONG_ENOUGH_S:
                break
    return best


def seconds_of(runtime: Runtime, values: Floats, wanted: Mask) -> float:
    """Return the seconds of one call, shared by the calls that run beside each other."""
    started = time.perf_counter()
    runtime.best(values, wanted)
    return (time.perf_counter() - started) / runtime.beside


def machine_key(context: Context) -> str:
    """Return what the speed depends on: the processor and the threads that the job has."""
    return f"{_processor()}, {cores(context)} threads"


def _processor() -> str:
    """Return the processor's model."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
