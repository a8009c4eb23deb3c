"""``deepscape run FILE.job.json ...``: repeat saved jobs without QGIS, in the engine's environment.

    <engine's python> <plugin folder>/tasks/run_worker.py run map.job.json

Progress goes to standard error, each result as one line of JSON to standard output. Exit codes: 0 all jobs are done, 1
one failed (its sentence is printed), 130 cancelled by SIGINT or SIGTERM. Standard input is not read: under srun and
nohup it is empty. Under torchrun and srun the ranks other than 0 run distributed jobs only and print nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from typing import Any, Callable, List, Mapping, Optional, Sequence

from .context import Context
from .errors import MENDABLE, DeepscapeError, JobCancelled
from .jobfiles import read_job_file, remove_parts
from .jobs import Job, result_to_json
from .protocol import Message, jsonable, write_all
from .worker import END_S, JobContext, explain, perform

CANCELLED = 130

# A job that is not distributed runs on rank 0 alone: a library that finds these would wait for the other ranks.
_RANK_VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT",
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE",
)  # fmt: skip


def main(arguments: Sequence[str], output: int = 1) -> int:
    """Run the named job files one after the other; returns the exit code.

    Args:
        arguments: paths of job files.
        output: descriptor for the results.
    """
    files = [argument for argument in arguments if not argument.startswith("-")]
    if not files or len(files) != len(arguments):
        sys.stderr.write((__doc__ or "") + "\n")
        return 0 if list(arguments) in (["-h"], ["--help"]) else 2
    rank = rank_of(os.environ)
    code = 0
    for path in files:
        try:
            job = read_job_file(path)
            if not job.distributed:
                if rank != 0:
                    continue
                for name in _RANK_VARIABLES:
                    os.environ.pop(name, None)
            result = _run(job, rank)
        except JobCancelled as error:
            sys.stderr.write(f"{path}: cancelled. {error.remedy}".rstrip() + "\n")
            return CANCELLED
        except DeepscapeError as error:
            if error.details and not isinstance(error, MENDABLE):
                sys.stderr.write(error.details.rstrip() + "\n")
            sys.stderr.write(f"{path}: {error}\n")
            code = 1
            continue
        if rank == 0:
            write_all(output, (result_to_json(jsonable(result)) + "\n").encode("utf-8", "surrogateescape"))
    return code


def rank_of(environ: Mapping[str, str]) -> int:
    """Return this process's rank under torchrun (RANK) or srun (SLURM_PROCID); 0 without them."""
    for name in ("RANK", "SLURM_PROCID"):
        value = environ.get(name, "")
        if value.isdigit():
            return int(value)
    return 0


def _run(job: Job, rank: int) -> Any:
    scratch = tempfile.mkdtemp(prefix="deepscape-")
    context = JobContext(printer(rank, sys.stderr.isatty()), scratch)
    restore = _cancel_on_signals(job, context)
    try:
        return perform(job, context)
    except JobCancelled:
        raise
    except (Exception, SystemExit) as error:
        raise explain(error, job) from error
    finally:
        restore()
        context.close()
        if context.cancelled.is_set():
            remove_parts(job)


def _cancel_on_signals(job: Job, context: Context) -> Callable[[], None]:
    """Let SIGINT and SIGTERM cancel the job, in good order within five seconds, else anyway; returns what undoes it."""
    done = threading.Event()

    def hard_end() -> None:
        if not done.wait(END_S):
            remove_parts(job)
            shutil.rmtree(context.scratch(), ignore_errors=True)
            os._exit(CANCELLED)

    def on_signal(number: int, frame: Any) -> None:
        if not context.cancelled.is_set():
            context.cancelled.set()
            threading.Thread(target=hard_end, daemon=True).start()

    if threading.current_thread() is not threading.main_thread():
        return done.set
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        done.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


def printer(rank: int, overwrite: bool, clock: Optional[Callable[[], float]] = None) -> Callable[[Message], None]:
    """Return the function that prints messages to standard error, rank 0 alone.

    Args:
        rank: this process's rank.
        overwrite: progress overwrites its line (a terminal); otherwise it is printed every ten seconds.
        clock: seconds; None = the system's.
    """
    now = clock or time.monotonic
    shown_s, shown_stage = -1e9, ""

    def show(message: Message) -> None:
        nonlocal shown_s, shown_stage
        if rank != 0 or message["type"] == "picture":
            return
        if message["type"] != "progress":
            sys.stderr.write(_line(message) + "\n")
            return
        ends = message["done"] >= message["total"]
        if overwrite:
            sys.stderr.write("\r\x1b[K" + _line(message) + ("\n" if ends else ""))
        elif ends or message["stage"] != shown_stage or now() - shown_s >= 10:
            shown_s, shown_stage = now(), message["stage"]
            sys.stderr.write(_line(message) + "\n")
        sys.stderr.flush()

    return show


def _line(message: Message) -> str:
    if message["type"] == "metric":
        return f"{message['name']} = {message['value']:.6g} (step {message['step']})"
    if message["type"] != "progress":
        return f"{'Warning: ' if message['type'] == 'warning' else ''}{message['text']}"
    parts: List[str] = [f"{message['stage'] or 'progress'}: {message['done']:.10g} of {message['total']:.10g}"]
    if message["unit"]:
        parts.append(f" {message['unit']}")
    if message["rate"]:
        parts.append(f", {message['rate']:.3g}/s, {message['remaining']:.0f} s remain")
    return "".join(parts)
