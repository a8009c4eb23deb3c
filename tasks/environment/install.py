"""Install, repair and remove the engine's environment: three steps, each verified, each repeatable.

1. torch at its pinned version (torchwheel.py). 2. Everything else from the hash lock. 3. Verification by importing in
the child. QGIS's own Python is only ever asked for its version.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess  # nosec B404 - asks ps about one process
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..errors import BadInput, DeepscapeError, DiskFull, EngineSetupFailed
from ..processes import clean_environment
from .commands import Argument, CommandFailed, Runner, cause_of, explain, explain_os_error
from .locking import SetupLock
from .lookup import READY, EngineInterpreter, forget, is_program, read_json, venv_python, write_json
from .places import cache_dir, engines_dir, home, made
from .release import (
    LOCK,
    NEEDED_GB,
    PYTHON_MANAGED,
    PYTHON_NEWEST,
    PYTHON_OLDEST,
    TORCH,
    TORCH_DOWNLOAD,
    environment_key,
)
from .report import EngineStatus, status_of
from .setuplog import SetupLog
from .torchwheel import attempts, has_nvidia, matching_wheels
from .uv import Fetch, find_uv, local_folders, uv_environment

ACTIONS = ("install", "repair", "remove")
BUILDS = ("auto", "cpu", "cuda")

PROBE = Path(__file__).with_name("probe.py")
_PROBE_TIMEOUT_S = 600  # the first import on a slow disk with a virus scanner takes minutes
_CRASH_SUFFIX = ".installing.json"

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class SetupOptions:
    """What `install` is to do.

    Attributes:
        action: install (nothing to do when it is there), repair (built anew) or remove (all environments, uv, cache).
        build: auto (CUDA where there is an NVIDIA driver), cpu or cuda.
        interpreter: an interpreter to use instead: it is verified, and nothing is installed.
        wheels: folder with wheels, for machines without network.
        uv: the setting ``deepscape/uv``.
        extra_env: variables with the proxy and certificates of QGIS, for uv.
    """

    action: str = "install"
    build: str = "auto"
    interpreter: str = ""
    wheels: str = ""
    uv: str = ""
    extra_env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value, valid in (("ACTION", self.action, ACTIONS), ("BUILD", self.build, BUILDS)):
            if value not in valid:
                raise BadInput(f"{name} is '{value}'.", f"Valid values: {', '.join(valid)}.")
        if self.interpreter and not is_program(Path(self.interpreter)):
            raise BadInput(f"INTERPRETER '{self.interpreter}' is no program.", "Give the path of a Python interpreter.")
        if self.wheels and not Path(self.wheels).is_dir():
            raise BadInput(f"WHEELS '{self.wheels}' is no folder.", "Give a folder with .whl files, or leave it empty.")


def install(
    options: SetupOptions,
    progress: Progress = lambda percent, sentence: None,
    cancelled: Callable[[], bool] = lambda: False,
    log: Callable[[str], None] = lambda line: None,
    fetch: Optional[Fetch] = None,
) -> EngineStatus:
    """Do what the options say and return the engine's state after it.

    Args:
        options: see there.
        progress: gets percent (0 to 100) and a sentence at every stage.
        cancelled: polled ten times a second; true ends uv with its children.
        log: gets every line, without credentials.
        fetch: gets a URL's content (QGIS's network manager); raises OSError on failure. None = the standard library.

    Raises:
        EngineSetupFailed, DiskFull: a sentence and its remedy; ``details`` holds the end of the command's output.
        JobCancelled: cancelled; the next call cleans up and begins anew.
    """
    journal = SetupLog(log)
    try:
        # The user's variables come last: they are closer to her wish than QGIS's settings.
        environ = clean_environment({**options.extra_env, **os.environ})
        environ = uv_environment(environ, home() / "cache" / "uv")
        runner = Runner(environ, made(home()), journal, cancelled)
        if options.interpreter:
            return _use_interpreter(options.interpreter, runner, progress)
        with SetupLock(engines_dir(), lambda sentence: progress(0, sentence), cancelled):
            _clean_up(runner)
            if options.action == "remove":
                return _remove_all(progress)
            return _Installation(options, runner, progress, fetch).run()
    except DeepscapeError as error:
        journal(f"{type(error).__name__}: {error}")
        raise
    except OSError as error:
        journal(f"{type(error).__name__}: {error}")
        raise explain_os_error("Setting up the engine failed", error, home()) from error
    finally:
        journal.close()
        forget()


class _Installation:
    """One run of install or repair: the steps in their order, and what they learn from each other."""

    def __init__(self, options: SetupOptions, runner: Runner, progress: Progress, fetch: Optional[Fetch]) -> None:
        self._options = options
        self._runner = runner
        self._progress = progress
        self._fetch = fetch
        self._wanted = options.build
        if options.build == "auto":
            self._wanted = "cuda" if has_nvidia(runner.environ) else "cpu"

    def run(self) -> EngineStatus:
        """Return the state of the environment, built when it was not there."""
        pythons = base_pythons(self._runner)
        version = pythons[0][1] if pythons else _version_of(PYTHON_MANAGED)
        folder = engines_dir() / environment_key(version, self._wanted)
        python = venv_python(folder)
        if self._options.action == "install" and read_json(folder / READY) and is_program(python):
            self._progress(100, "The engine is set up already.")
            return status_of(EngineInterpreter(str(python), "managed", str(folder), read_json(folder / READY)))
        check_disk(self._wanted)
        crash = folder.with_name(folder.name + _CRASH_SUFFIX)
        _delete(folder)
        write_json(crash, {"pid": os.getpid(), "started": time.strftime("%Y-%m-%d %H:%M:%S")})
        self._runner.started = lambda pid: write_json(crash, {"pid": os.getpid(), "child": pid})
        try:
            facts = self._build(folder, [path for path, _ in pythons], version)
        except DiskFull:
            _delete(folder)  # gives back at once what the unfinished environment took
            raise
        write_json(folder / READY, facts)
        self._runner.started = lambda pid: None
        crash.unlink()
        self._progress(100, f"The engine is ready: torch {facts['versions']['torch']} on {facts['device_name']}.")
        return status_of(EngineInterpreter(str(python), "managed", str(folder), facts))

    def _build(self, folder: Path, pythons: List[Path], version: Tuple[int, int]) -> Dict[str, Any]:
        """Do the steps; return the facts of the verification."""
        self._progress(1, "Looking for uv, which installs the engine.")
        uv = find_uv(self._options.uv, self._runner, pythons, self._fetch)
        self._progress(4, f"Making an environment for Python {version[0]}.{version[1]} in '{folder}'.")
        self._make_venv(uv, folder, pythons)
        python = venv_python(folder)
        build = self._install_torch(uv, python, version)
        self._install_lock(uv, python)
        self._progress(88, "Verifying: every package is imported by the engine's own Python (up to a minute).")
        facts = verify(str(python), self._runner)
        if facts["build"] != build:
            raise EngineSetupFailed(
                f"torch {facts['versions']['torch']} was installed: the build for {facts['build']}, not for {build}.",
                "Run the set-up again with ACTION repair.",
            )
        return facts

    def _make_venv(self, uv: Path, folder: Path, pythons: List[Path]) -> None:
        base: List[str] = ["--python", str(pythons[0])] if pythons else ["--python", PYTHON_MANAGED, "--managed-python"]
        try:
            self._runner.run([uv, "venv", "--no-project", *base, folder], line=self._told(4))
        except CommandFailed as error:
            raise explain("The environment's Python cannot be made", error.output, home()) from error

    def _install_torch(self, uv: Path, python: Path, version: Tuple[int, int]) -> str:
        """Install torch by the first way that works; return its build."""
        wheels = matching_wheels(local_folders(self._runner.environ, self._options.wheels), version)
        ways = attempts(self._options.build, self._wanted, wheels)
        failure: Optional[CommandFailed] = None
        for way in ways:
            self._progress(10, f"Installing torch {TORCH} ({way.build}) from {way.source}.")
            try:
                command: List[Argument] = [uv, "pip", "install", "--python", python, "--no-build", *way.arguments]
                self._runner.run(command, line=self._told(10), extra=self._links())
                return way.build
            except CommandFailed as error:
                # The first way is the one that was meant: what it says is what the user is told.
                failure = failure or error
                if cause_of(error.output) == "full":
                    break
        size = TORCH_DOWNLOAD[self._wanted]
        raise explain(
            f"torch {TORCH} (build for {self._wanted}, about {size}) cannot be installed",
            failure.output if failure else "",
            home(),
            f"Or download its wheel for Python {version[0]}.{version[1]} and give its folder as WHEELS.",
        ) from failure

    def _install_lock(self, uv: Path, python: Path) -> None:
        """Install the locked packages: from the folder of wheels alone where that is enough, else with the index."""
        self._progress(55, "Installing the other packages.")
        command: List[Argument] = [uv, "pip", "install", "--python", python, "--no-deps", "--require-hashes"]
        command += ["--no-build", "--compile-bytecode", "-r", LOCK]
        if self._options.wheels:
            try:
                self._runner.run([*command, "--no-index"], line=self._told(55), extra=self._links())
                return
            except CommandFailed as error:
                self._runner.log(f"The folder of wheels is not enough by itself (exit code {error.code}).")
        try:
            self._runner.run(command, line=self._told(55), extra=self._links())
        except CommandFailed as error:
            raise explain("The engine's packages cannot be installed", error.output, home()) from error

    def _links(self) -> Dict[str, str]:
        """Return uv's variable for the folders of wheels: WHEELS before those of the environment."""
        links = [link for link in (self._options.wheels, self._runner.environ.get("UV_FIND_LINKS", "")) if link]
        return {"UV_FIND_LINKS": ",".join(links)} if links else {}

    def _told(self, percent: float) -> Callable[[str], None]:
        """Return a listener that turns uv's lines into sentences of progress."""

        def listen(line: str) -> None:
            words = line.split()
            if words and words[0] in ("Downloading", "Downloaded", "Prepared", "Installed", "Bytecode"):
                self._progress(percent, line.strip() + ".")

        return listen


def _use_interpreter(python: str, runner: Runner, progress: Progress) -> EngineStatus:
    progress(5, f"Verifying '{python}': every package is imported by it.")
    facts = verify(python, runner)
    progress(100, f"'{python}' can run the engine: torch {facts['versions']['torch']} on {facts['device_name']}.")
    return status_of(EngineInterpreter(python, "setting", "", facts))


def verify(python: str, runner: Runner) -> Dict[str, Any]:
    """Import all that the engine needs in a child process and return what it found.

    Returns:
        ``versions`` (name -> version), ``device`` (cuda or cpu), ``device_name``, ``build``, ``seconds`` per import.

    Raises:
        EngineSetupFailed: the interpreter does not run, is too old, or a package is missing; names it.
    """
    version = python_version(Path(python), runner)
    if version is None:
        raise EngineSetupFailed(f"'{python}' does not run as a Python interpreter.", "Name another, or repair it.")
    if version < PYTHON_OLDEST:
        raise EngineSetupFailed(
            f"'{python}' is Python {version[0]}.{version[1]}; the engine needs {PYTHON_OLDEST[0]}.{PYTHON_OLDEST[1]}.",
            "Name a newer interpreter, or let the set-up make the environment.",
        )
    try:
        output = runner.run([python, "-I", "-X", "utf8", PROBE], timeout_s=_PROBE_TIMEOUT_S)
    except CommandFailed as error:
        findings = _last_json(error.output)
        if "missing" in findings:
            raise EngineSetupFailed(
                f"The engine's Python '{python}' lacks {findings['missing']} ({findings['message']}).",
                "Run the set-up with ACTION repair, or install it into your interpreter.",
                error.output,
            ) from error
        raise explain(f"The engine's Python '{python}' failed its verification", error.output, home()) from error
    findings = _last_json(output)
    if "versions" not in findings:
        raise EngineSetupFailed(f"'{python}' gave no answer when verified.", "Run the set-up again.", output)
    return findings


def _last_json(output: str) -> Dict[str, Any]:
    for line in reversed(output.splitlines()):
        if line.lstrip().startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            return found if isinstance(found, dict) else {}
    return {}


def base_pythons(runner: Runner) -> List[Tuple[Path, Tuple[int, int]]]:
    """Return the real interpreters of QGIS's Python that the engine can use, with their versions.

    ``sys.executable`` is QGIS itself on Windows and macOS; the interpreter lies beside the standard library there.
    """
    prefix = Path(sys.base_exec_prefix)
    candidates = [Path(sys.executable)] if Path(sys.executable or "").name.lower().startswith("python") else []
    if os.name == "nt":
        candidates += [prefix / "python.exe", prefix / "python3.exe"]
    else:
        candidates += [prefix / "bin" / "python3", Path("/usr/bin/python3")]
    found: List[Tuple[Path, Tuple[int, int]]] = []
    for candidate in dict.fromkeys(candidates):
        version = python_version(candidate, runner) if is_program(candidate) else None
        if version is not None and PYTHON_OLDEST <= version <= PYTHON_NEWEST:
            found.append((candidate, version))
    return found


def python_version(python: Path, runner: Runner) -> Optional[Tuple[int, int]]:
    """Return an interpreter's version (major, minor); None when it does not run as one."""
    script = "import ctypes, ssl, sys, zlib; print('version %d.%d' % sys.version_info[:2])"
    try:
        words = runner.run([python, "-I", "-c", script], timeout_s=60).split()
    except (CommandFailed, OSError):
        return None
    return _version_of(words[-1]) if len(words) >= 2 and words[-2] == "version" else None


def _version_of(text: str) -> Tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def check_disk(build: str) -> None:
    """Raise DiskFull when the folder's disk has less room than a build needs; says both numbers."""
    folder = home()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < NEEDED_GB[build]:
        raise DiskFull(
            f"The engine needs {NEEDED_GB[build]} GB, and the disk of '{home()}' has {free_gb:.1f} GB free.",
            "Free some space, or set DEEPSCAPE_HOME to a folder on another disk.",
        )


def _clean_up(runner: Runner) -> None:
    """Remove what an interrupted set-up left: its environment, its uv when that still runs, folders being deleted."""
    for crash in engines_dir().glob("*" + _CRASH_SUFFIX):
        runner.log(f"'{crash.name}': the last set-up did not come to its end; it begins anew.")
        _end_orphan(int(read_json(crash).get("child", 0)))
        _delete(crash.with_name(crash.name[: -len(_CRASH_SUFFIX)]))
        crash.unlink()
    for folder in engines_dir().glob("*.deleted-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _end_orphan(pid: int) -> None:
    """End the uv of a set-up that was killed; it may still be writing. Only when the process id is still a uv's."""
    program = shutil.which("ps")
    if pid <= 0 or os.name == "nt" or program is None:
        return
    import signal

    asked = subprocess.run(  # nosec B603 - fixed arguments
        [program, "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    if _is_uv(asked.stdout.split()):
        os.killpg(pid, signal.SIGKILL)


def _is_uv(command: List[str]) -> bool:
    return bool(command) and Path(command[0]).name in ("uv", "uv.exe")


def _delete(folder: Path) -> None:
    """Delete an environment: renamed first, so that it is there as a whole or not at all."""
    if not folder.exists():
        return
    (folder / READY).unlink(missing_ok=True)
    aside = folder.with_name(f"{folder.name}.deleted-{os.getpid()}-{time.monotonic_ns()}")
    try:
        folder.rename(aside)
    except OSError as error:
        raise EngineSetupFailed(
            f"The environment '{folder}' is still in use: {error.strerror}.",
            "Close other QGIS windows that run Deepscape, and run the set-up again.",
        ) from error
    shutil.rmtree(aside, ignore_errors=True)


def _remove_all(progress: Progress) -> EngineStatus:
    """Remove every environment, the managed Python, our uv and its cache; models and logs stay."""
    progress(10, f"Removing the environments in '{engines_dir()}'.")
    for folder in engines_dir().iterdir():
        if folder.is_dir():
            _delete(folder)
    for folder in (home() / "uv", home() / "python", cache_dir()):
        progress(60, f"Removing '{folder}'.")
        shutil.rmtree(folder, ignore_errors=True)
    progress(100, "The engine is removed. Models and logs are kept.")
    return status_of(None, "The engine was removed.")
