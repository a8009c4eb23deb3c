"""Install, repair and remove the engine's environment: three steps, each verified, each repeatable.

1. torch at its pinned version (torchwheel.py). 2. Everything else from the hash lock. 3. Verification by importing in
the child. Extras (extras.py) are added to an environment that is complete. QGIS's own Python is only ever asked for
its version.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess  # nosec B404 - asks ps about one process
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Set, Tuple

from ..errors import BadInput, DeepscapeError, DiskFull, EngineSetupFailed
from ..processes import clean_environment
from .commands import Argument, CommandFailed, Runner, cause_of, explain, explain_os_error
from .extras import FOLDER as EXTRAS_FOLDER
from .extras import (
    complete,
    extra_folder,
    in_words,
    installed_extras,
    is_complete,
    is_current,
    switch_off,
    switch_on,
)
from .files import is_program, read_json, write_json
from .locking import SetupLock
from .lookup import READY, EngineInterpreter, forget, managed_engines, venv_python
from .places import cache_dir, engines_dir, home, made
from .release import (
    EXTRAS,
    LOCK,
    NEEDED_GB,
    PYTHON_MANAGED,
    TORCH,
    TORCH_DOWNLOAD,
    environment_key,
)
from .report import EngineStatus, status_of
from .setuplog import SetupLog
from .torchwheel import attempts, has_nvidia, matching_wheels
from .uv import Fetch, find_uv, local_folders, uv_environment
from .verification import base_pythons, verify, verify_extra, version_of

ACTIONS = ("install", "repair", "remove")
BUILDS = ("auto", "cpu", "cuda")

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
        extras: keys of EXTRAS to add. An environment keeps those that it has, also when it is repaired.
    """

    action: str = "install"
    build: str = "auto"
    interpreter: str = ""
    wheels: str = ""
    uv: str = ""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    extras: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value, valid in (("ACTION", self.action, ACTIONS), ("BUILD", self.build, BUILDS)):
            if value not in valid:
                raise BadInput(f"{name} is '{value}'.", f"Valid values: {', '.join(valid)}.")
        for name in self.extras:
            if name not in EXTRAS:
                raise BadInput(f"EXTRAS holds '{name}'.", f"Valid values: {', '.join(EXTRAS)}.")
        if self.extras and self.action == "remove":
            raise BadInput(
                f"ACTION is remove and EXTRAS is {', '.join(self.extras)}: remove takes away the whole engine.",
                "Leave EXTRAS empty to remove all of it.",
            )
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
    before_replacing: Callable[[], None] = lambda: None,
) -> EngineStatus:
    """Do what the options say and return the engine's state after it.

    Args:
        options: see there.
        progress: gets percent (0 to 100) and a sentence at every stage.
        cancelled: polled ten times a second; true ends uv with its children.
        log: gets every line, without credentials.
        fetch: gets a URL's content (QGIS's network manager); raises OSError on failure. None = the standard library.
        before_replacing: called before an environment is built or removed, or another interpreter is taken: workers
            hold its files. Not called where the engine is there already and extras alone are added.

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
            before_replacing()
            return _use_interpreter(options.interpreter, options.extras, runner, progress)
        with SetupLock(engines_dir(), lambda sentence: progress(0, sentence), cancelled):
            lost = _clean_up(runner)
            if options.action == "remove":
                before_replacing()
                return _remove_all(progress)
            return _Installation(options, runner, progress, fetch, before_replacing).run(lost)
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

    def __init__(
        self,
        options: SetupOptions,
        runner: Runner,
        progress: Progress,
        fetch: Optional[Fetch],
        before_replacing: Callable[[], None],
    ) -> None:
        self._options = options
        self._runner = runner
        self._tell = progress
        self._span = (0.0, 100.0)  # the part of the whole that the present step's 0 to 100 percent are
        self._fetch = fetch
        self._before_replacing = before_replacing
        self._pythons: List[Tuple[Path, Tuple[int, int]]] = []
        self._found_uv: Optional[Path] = None
        self._wanted = options.build
        if options.build == "auto":
            self._wanted = "cuda" if has_nvidia(runner.environ) else "cpu"

    def run(self, lost: Set[str]) -> EngineStatus:
        """Return the state of the environment, built when it was not there, with the extras that were asked for.

        Args:
            lost: extras of an environment whose set-up was interrupted.
        """
        self._pythons = base_pythons(self._runner)
        version = self._pythons[0][1] if self._pythons else version_of(PYTHON_MANAGED)
        folder = self._extended() or engines_dir() / environment_key(version, self._wanted)
        facts = read_json(folder / READY)
        there = self._options.action == "install" and bool(facts) and is_program(venv_python(folder))
        asked = {*self._options.extras, *lost}
        if not there:
            asked.update(installed_extras(folder))
            self._span = (0.0, 85.0 if asked else 100.0)
            facts = self._build(folder, version, asked)
        missing = [name for name in EXTRAS if name in asked and not is_current(folder, name)]
        begin = 0.0 if there else 85.0
        for number, name in enumerate(missing):
            step = (100.0 - begin) / len(missing)
            self._span = (begin + number * step, begin + (number + 1) * step)
            self._add_extra(folder, name)
        self._span = (0.0, 100.0)
        extras = installed_extras(folder)
        beside = f", with {in_words(extras)}" if extras else ""
        if there and not missing:
            self._progress(100, f"The engine is set up already{beside}.")
        else:
            device = facts["device_name"]
            self._progress(100, f"The engine is ready: torch {facts['versions']['torch']} on {device}{beside}.")
        return status_of(EngineInterpreter(str(venv_python(folder)), "managed", str(folder), facts, extras))

    def _extended(self) -> Optional[Path]:
        """Return the environment in use where extras alone are wished: another build of torch is not meant by that."""
        options = self._options
        if options.action != "install" or options.build != "auto" or not options.extras:
            return None
        return next((Path(engine.folder) for engine in managed_engines()), None)

    # --- the environment ---

    def _build(self, folder: Path, version: Tuple[int, int], extras: Set[str]) -> Dict[str, Any]:
        """Make the environment anew, which is to get extras; return the facts of its verification."""
        check_disk("The engine", NEEDED_GB[self._wanted])
        self._before_replacing()
        with self._unfinished(folder, extras):
            facts = self._install(folder, version)
            write_json(folder / READY, facts)
        return facts

    @contextlib.contextmanager
    def _unfinished(self, folder: Path, extras: Set[str]) -> Iterator[None]:
        """Delete what is in a folder, and mark it as unfinished until the block has come to its end.

        The mark names the extras that are to come after it, for a set-up that begins anew.
        """
        crash = folder.with_name(folder.name + _CRASH_SUFFIX)
        _delete(folder)
        made(folder.parent)
        mark = {"pid": os.getpid(), "started": time.strftime("%Y-%m-%d %H:%M:%S"), "extras": sorted(extras)}
        write_json(crash, mark)
        self._runner.started = lambda pid: write_json(crash, {**mark, "child": pid})
        try:
            yield
        except DiskFull:
            _delete(folder)  # gives back at once what the unfinished folder took
            raise
        finally:
            self._runner.started = lambda pid: None
        crash.unlink()

    def _install(self, folder: Path, version: Tuple[int, int]) -> Dict[str, Any]:
        """Do the steps; return the facts of the verification."""
        uv = self._uv()
        self._progress(4, f"Making an environment for Python {version[0]}.{version[1]} in '{folder}'.")
        self._make_venv(uv, folder)
        python = venv_python(folder)
        build = self._install_torch(uv, python, version)
        self._progress(55, "Installing the other packages.")
        self._install_locked(LOCK, ["--python", python], 55, "The engine's packages cannot be installed")
        self._progress(88, "Verifying: every package is imported by the engine's own Python (up to a minute).")
        facts = verify(str(python), self._runner)
        if facts["build"] != build:
            raise EngineSetupFailed(
                f"torch {facts['versions']['torch']} was installed: the build for {facts['build']}, not for {build}.",
                "Run the set-up again with ACTION repair.",
            )
        return facts

    def _uv(self) -> Path:
        if self._found_uv is None:
            self._progress(1, "Looking for uv, which installs the engine.")
            pythons = [path for path, _ in self._pythons]
            self._found_uv = find_uv(self._options.uv, self._runner, pythons, self._fetch)
        return self._found_uv

    def _make_venv(self, uv: Path, folder: Path) -> None:
        base = ["--python", PYTHON_MANAGED, "--managed-python"]
        if self._pythons:
            base = ["--python", str(self._pythons[0][0])]
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

    def _install_locked(self, lock: Path, where: List[Argument], percent: float, failed: str, remedy: str = "") -> None:
        """Install locked packages: from the folder of wheels alone where that is enough, else with the index."""
        command: List[Argument] = [self._uv(), "pip", "install", *where, "--no-deps", "--require-hashes"]
        command += ["--no-build", "--compile-bytecode", "-r", lock]
        if self._options.wheels:
            try:
                self._runner.run([*command, "--no-index"], line=self._told(percent), extra=self._links())
                return
            except CommandFailed as error:
                self._runner.log(f"The folder of wheels is not enough by itself (exit code {error.code}).")
        try:
            self._runner.run(command, line=self._told(percent), extra=self._links())
        except CommandFailed as error:
            raise explain(failed, error.output, home(), remedy) from error

    # --- extras ---

    def _add_extra(self, folder: Path, name: str) -> None:
        """Put an extra beside the environment's packages, and switch it on when it has proved to work."""
        extra, target = EXTRAS[name], extra_folder(folder, name)
        if not is_complete(target):
            check_disk(extra.title, extra.needed_gb)
            # What is not whole is not to be found; packages of an earlier release may be, until these take their place.
            switch_off(folder, name, target)
            self._uv()
            python = venv_python(folder)
            self._progress(5, f"Installing {extra.title} beside the engine's packages.")
            failed = f"The engine works as before, but {extra.title} cannot be installed"
            with self._unfinished(target, set()):
                where: List[Argument] = ["--python", python, "--target", target]
                self._install_locked(extra.lock, where, 5, failed, f"Or leave {name} out of EXTRAS.")
                self._progress(80, f"Verifying: {extra.title} computes something.")
                complete(target, verify_extra(str(python), name, self._runner, target))
        switch_on(folder, name)

    # --- what uv is told, and says ---

    def _links(self) -> Dict[str, str]:
        """Return uv's variable for the folders of wheels: WHEELS before those of the environment."""
        links = [link for link in (self._options.wheels, self._runner.environ.get("UV_FIND_LINKS", "")) if link]
        return {"UV_FIND_LINKS": ",".join(links)} if links else {}

    def _progress(self, percent: float, sentence: str) -> None:
        begin, end = self._span
        self._tell(begin + percent * (end - begin) / 100, sentence)

    def _told(self, percent: float) -> Callable[[str], None]:
        """Return a listener that turns uv's lines into sentences of progress."""

        def listen(line: str) -> None:
            words = line.split()
            if words and words[0] in ("Downloading", "Downloaded", "Prepared", "Installed", "Bytecode"):
                self._progress(percent, line.strip() + ".")

        return listen


def _use_interpreter(python: str, extras: Tuple[str, ...], runner: Runner, progress: Progress) -> EngineStatus:
    progress(5, f"Verifying '{python}': every package is imported by it.")
    facts = verify(python, runner)
    found = {name: verify_extra(python, name, runner)["version"] for name in extras}
    beside = f", with {in_words(found)}" if found else ""
    device = facts["device_name"]
    progress(100, f"'{python}' can run the engine: torch {facts['versions']['torch']} on {device}{beside}.")
    return status_of(EngineInterpreter(python, "setting", "", facts, found))


def check_disk(what: str, needed_gb: float) -> None:
    """Raise DiskFull when the folder's disk has less room than something needs; says both numbers."""
    folder = home()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        raise DiskFull(
            f"{what} needs {needed_gb} GB, and the disk of '{home()}' has {free_gb:.1f} GB free.",
            "Free some space, or set DEEPSCAPE_HOME to a folder on another disk.",
        )


def _clean_up(runner: Runner) -> Set[str]:
    """Remove what an interrupted set-up left: an environment or an extra, its uv when that still runs, and folders
    that were being deleted; return the extras that an environment has lost with it.
    """
    lost: Set[str] = set()
    for place in ("", f"*/{EXTRAS_FOLDER}/"):
        for crash in engines_dir().glob(f"{place}*{_CRASH_SUFFIX}"):
            runner.log(f"'{crash.name}': the last set-up did not come to its end; it begins anew.")
            mark = read_json(crash)
            _end_orphan(int(mark.get("child", 0)))
            lost.update(name for name in mark.get("extras", ()) if name in EXTRAS)
            _delete(crash.with_name(crash.name[: -len(_CRASH_SUFFIX)]))
            crash.unlink()
        for folder in engines_dir().glob(f"{place}*.deleted-*"):
            shutil.rmtree(folder, ignore_errors=True)
    return lost


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
