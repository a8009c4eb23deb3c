"""The engine's environment: found, made, verified, repaired, removed; each failure with its sentence.

uv and the engine's Python are small scripts here; the last test builds a real environment.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import venv
import zipfile
from pathlib import Path

import pytest
from deepscape.tasks import environment
from deepscape.tasks.environment import (
    SetupOptions,
    engine_ready,
    extras,
    extras_of,
    find_engine,
    install,
    lookup,
    places,
    release,
    status,
    torchwheel,
    uv,
)
from deepscape.tasks.environment.commands import cause_of, explain
from deepscape.tasks.environment.locking import SetupLock
from deepscape.tasks.environment.setuplog import end_of, scrub
from deepscape.tasks.errors import BadInput, DiskFull, EngineMissing, EngineSetupFailed, JobCancelled

installing = sys.modules["deepscape.tasks.environment.install"]

FACTS = {
    "versions": {"python": "3.11.2", "torch": "2.13.0+cpu"},
    "device": "cpu",
    "device_name": "2 CPU cores (x86_64)",
    "build": "cpu",
    "seconds": {"torch": 1.0},
}

FAKE_UV = """#!/bin/sh
echo "$@" >> "$FAKE_LOG"
env > "$FAKE_LOG.env"
case "$1" in
    --version) echo "uv ${FAKE_VERSION:-0.13.8} (test)"; exit 0 ;;
    venv)
        for last; do :; done
        mkdir -p "$last/bin" "$last/lib/python3.11/site-packages"
        cp "$FAKE_PYTHON" "$last/bin/python"
        exit 0 ;;
esac
for word; do
    [ "$before" = --target ] && mkdir -p "$word" && touch "$word/openvino.py"
    before="$word"
done
case "$*" in
    *"${FAKE_HANG:-nothing}"*) echo "$$" > "$FAKE_LOG.pid"; sleep 60 ;;
    *"${FAKE_FAIL_ON:-nothing}"*) echo "$FAKE_SAYS" >&2; exit 2 ;;
esac
echo "Downloading torch (183.0MiB)"
"""

FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *"probe.py openvino"*) echo "$FAKE_EXTRA"; exit "$FAKE_EXTRA_CODE" ;;
    *probe.py*) echo 'a library prints this'; echo '{facts}'; exit {code} ;;
    *) echo 'version {version}' ;;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a fake uv, an empty home and no package configuration."""
    for name in list(os.environ):
        if name.startswith(("UV_", "PIP_", "DEEPSCAPE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DEEPSCAPE_HOME", str(tmp_path / "home ü"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("DEEPSCAPE_UV", str(script(tmp_path / "uv", FAKE_UV)))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "uv.log"))
    monkeypatch.setenv("FAKE_PYTHON", str(fake_python(tmp_path / "engine-python")))
    monkeypatch.setenv("FAKE_EXTRA", '{"version": "2026.4.1"}')
    monkeypatch.setenv("FAKE_EXTRA_CODE", "0")
    monkeypatch.setattr(installing, "has_nvidia", lambda environ: False)
    lookup.forget()
    yield tmp_path
    lookup.forget()


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_python(path, facts=FACTS, code=0, version="3.11"):
    return script(path, FAKE_PYTHON.format(facts=json.dumps(facts), code=code, version=version))


def calls(machine):
    log = machine / "uv.log"
    return log.read_text().splitlines() if log.exists() else []


def markers():
    return list(environment.engines_dir().glob("*.installing.json"))


# --- the work itself


def test_an_environment_is_made_verified_and_found(machine, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("GDAL_DATA", "/usr/share/gdal")
    stages = []
    with pytest.raises(EngineMissing, match="not set up"):
        find_engine()
    done = install(
        SetupOptions(extra_env={"ALL_PROXY": "http://qgis:1"}),
        progress=lambda percent, text: stages.append((percent, text)),
    )
    assert done.ready and done.device == "cpu" and done.versions["torch"] == "2.13.0+cpu"
    engine = find_engine()
    assert (engine.python, engine.origin) == (done.python, "managed")
    assert Path(engine.folder).parent == environment.engines_dir()
    assert engine.facts["device_name"] == "2 CPU cores (x86_64)"
    version, venv, torch, lock = calls(machine)
    assert version == "--version" and venv.startswith("venv --no-project --python ") and venv.endswith(engine.folder)
    assert torch.endswith("--no-build --no-deps --torch-backend=cpu torch==2.13.0")
    assert "--no-deps --require-hashes --no-build --compile-bytecode -r " in lock and lock.endswith("engine.lock")
    seen = (machine / "uv.log.env").read_text().splitlines()
    assert "HTTPS_PROXY=http://proxy:3128" in seen and "ALL_PROXY=http://qgis:1" in seen
    assert not [line for line in seen if line.startswith(("GDAL_DATA=", "PYTHONPATH="))]
    assert [percent for percent, _ in stages] == sorted(percent for percent, _ in stages) and stages[-1][0] == 100
    assert (10, "Downloading torch (183.0MiB).") in stages
    assert not markers()


def test_a_second_install_starts_nothing(machine):
    install(SetupOptions())
    (machine / "uv.log").unlink()
    assert install(SetupOptions()).ready
    assert calls(machine) == []


def test_repair_builds_anew_and_remove_leaves_models_and_logs(machine):
    first = install(SetupOptions())
    stray = Path(first.folder) / "stray"
    stray.touch()
    environment.model_store().joinpath("kept.safetensors").touch()
    assert install(SetupOptions(action="repair")).ready and not stray.exists()
    gone = install(SetupOptions(action="remove"))
    assert not gone.ready and not Path(first.folder).exists()
    assert environment.model_store().joinpath("kept.safetensors").exists() and Path(gone.log).exists()
    assert not engine_ready()


def test_the_build_is_checked_against_what_was_asked(machine, monkeypatch):
    fake_python(machine / "engine-python", {**FACTS, "build": "cuda"})
    with pytest.raises(EngineSetupFailed, match="the build for cuda, not for cpu"):
        install(SetupOptions(build="cpu"))
    assert markers() and not engine_ready()


# --- interrupted, cancelled, two at a time


def test_a_cancel_ends_uv_at_once_and_the_next_install_begins_anew(machine, monkeypatch):
    monkeypatch.setenv("FAKE_HANG", "engine.lock")
    pid_file = machine / "uv.log.pid"
    with pytest.raises(JobCancelled):
        install(SetupOptions(), cancelled=pid_file.exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert len(markers()) == 1 and not engine_ready()
    monkeypatch.delenv("FAKE_HANG")
    lines = []
    assert install(SetupOptions(), log=lines.append).ready
    assert any("did not come to its end" in line for line in lines) and not markers()


def test_a_killed_setup_leaves_no_uv_writing(machine, monkeypatch):
    setup = Path(environment.__file__).parents[1] / "run_setup.py"
    pid_file = machine / "uv.log.pid"
    killed = subprocess.Popen(
        [sys.executable, setup, "install"], env={**os.environ, "FAKE_HANG": "engine.lock"}, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip())
    killed.kill()
    killed.wait()
    orphan = int(pid_file.read_text())
    assert is_alive(orphan)
    monkeypatch.setattr(installing, "_is_uv", lambda words: "uv" in " ".join(words))  # a script shows as sh .../uv
    assert install(SetupOptions()).ready
    wait_for(lambda: not is_alive(orphan))


def test_a_folder_without_its_mark_of_readiness_is_not_used(machine):
    done = install(SetupOptions())
    (Path(done.folder) / "ready.json").write_text('{"versions"')
    assert not engine_ready()
    assert install(SetupOptions()).ready and len(calls(machine)) == 8


def test_an_environment_whose_python_went_away_is_not_ready(machine):
    done = install(SetupOptions())
    Path(done.python).unlink()
    assert not engine_ready()


def test_a_second_setup_waits_and_names_the_first(machine):
    told, order = [], []
    folder = environment.engines_dir()
    with SetupLock(folder, told.append, lambda: False):

        def second():
            with SetupLock(folder, told.append, lambda: False):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        wait_for(lambda: told)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert told[0].startswith(f"Process {os.getpid()} has been setting up the engine since ")


def test_waiting_for_another_setup_can_be_cancelled(machine):
    with SetupLock(environment.engines_dir(), lambda sentence: None, lambda: False), pytest.raises(JobCancelled):
        install(SetupOptions(), cancelled=lambda: True)


# --- extras


OPENVINO = {"openvino": "2026.4.1"}
WITH_OPENVINO = SetupOptions(extras=("openvino",))


def switch_of(folder):
    return Path(folder) / "lib" / "python3.11" / "site-packages" / "deepscape-openvino.pth"


def content_of(folder):
    """The files of an engine and their times, but for extras."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and "extras" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in files if path.suffix != ".pth"}


def test_an_extra_is_added_to_an_engine_that_stays_as_it_is(machine):
    before = install(SetupOptions())
    assert before.extras == {} and find_engine().extras == {} and "Extras                  none" in before.report
    kept = content_of(before.folder)
    (machine / "uv.log").unlink()
    stages, replaced = [], []
    done = install(
        WITH_OPENVINO,
        progress=lambda percent, text: stages.append((percent, text)),
        before_replacing=lambda: replaced.append(True),
    )
    assert (done.python, done.extras) == (before.python, OPENVINO) and content_of(done.folder) == kept
    assert find_engine().extras == extras_of(done.python) == OPENVINO and not replaced and not markers()
    target = Path(done.folder) / "extras" / release.extra_key("openvino")
    version, installed = calls(machine)
    assert version == "--version" and installed.endswith("openvino.lock")
    assert f"--python {done.python} --target {target} --no-deps --require-hashes --no-build" in installed
    assert (switch_of(done.folder).parent / switch_of(done.folder).read_text().strip()).resolve() == target
    assert [percent for percent, _ in stages] == sorted(percent for percent, _ in stages) and stages[-1] == (
        100,
        "The engine is ready: torch 2.13.0+cpu on 2 CPU cores (x86_64), with OpenVINO 2026.4.1.",
    )
    assert "Extras                  OpenVINO 2026.4.1" in status().report


def test_an_extra_that_is_there_is_told_and_kept(machine):
    install(WITH_OPENVINO)
    (machine / "uv.log").unlink()
    stages = []
    for options in (WITH_OPENVINO, SetupOptions()):
        assert install(options, progress=lambda percent, text: stages.append(text)).extras == OPENVINO
    assert stages == ["The engine is set up already, with OpenVINO 2026.4.1."] * 2
    assert calls(machine) == []


def test_an_engine_and_its_extra_are_made_in_one_go_and_repaired_together(machine):
    stages, replaced = [], []
    made = install(WITH_OPENVINO, progress=lambda percent, text: stages.append(percent))
    assert made.extras == OPENVINO and stages == sorted(stages) and stages[-1] == 100
    (switch_of(made.folder).parent / "stray").touch()
    done = install(SetupOptions(action="repair"), before_replacing=lambda: replaced.append(True))
    assert done.extras == OPENVINO and replaced and not (switch_of(made.folder).parent / "stray").exists()
    install(SetupOptions(action="remove"), before_replacing=lambda: replaced.append(True))
    assert len(replaced) == 2 and not Path(made.folder).exists() and find_extras() == {}


def find_extras():
    return {name: version for engine in lookup.managed_engines() for name, version in engine.extras.items()}


def test_an_extra_goes_into_the_engine_in_use_whatever_its_build(machine, monkeypatch):
    engine = install(SetupOptions(build="cpu"))
    monkeypatch.setattr(installing, "has_nvidia", lambda environ: True)
    done = install(WITH_OPENVINO)
    assert done.folder == engine.folder and done.extras == OPENVINO
    assert not [line for line in calls(machine)[4:] if "torch" in line]


def test_an_interrupted_extra_leaves_the_engine_and_begins_anew(machine, monkeypatch):
    before = install(SetupOptions())
    kept = content_of(before.folder)
    monkeypatch.setenv("FAKE_HANG", "openvino.lock")
    pid_file = machine / "uv.log.pid"
    with pytest.raises(JobCancelled):
        install(WITH_OPENVINO, cancelled=pid_file.exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert engine_ready() and find_engine().extras == {} and content_of(before.folder) == kept
    target = Path(before.folder) / "extras" / release.extra_key("openvino")
    (target / "half").touch()
    monkeypatch.delenv("FAKE_HANG")
    lines = []
    assert install(SetupOptions(), log=lines.append).extras == {}
    assert any("did not come to its end" in line for line in lines)
    assert not list(target.parent.iterdir()) and content_of(before.folder) == kept
    assert install(WITH_OPENVINO).extras == OPENVINO


def test_an_interrupted_repair_forgets_no_extra(machine, monkeypatch):
    engine = install(WITH_OPENVINO)
    monkeypatch.setenv("FAKE_FAIL_ON", "engine.lock")
    monkeypatch.setenv("FAKE_SAYS", "dns error")
    for _ in range(2):
        with pytest.raises(EngineSetupFailed):
            install(SetupOptions(action="repair"))
    assert not engine_ready()
    monkeypatch.delenv("FAKE_FAIL_ON")
    assert (install(SetupOptions()).folder, find_engine().extras) == (engine.folder, OPENVINO)


@pytest.mark.parametrize(
    ("said", "code", "sentence"),
    [
        ('{"missing": "openvino", "message": "ImportError: libtbb"}', 1, "machine (ImportError: libtbb)."),
        ("Illegal instruction", 132, "machine: Illegal instruction."),
    ],
)
def test_an_extra_that_does_not_work_is_told_and_not_switched_on(machine, monkeypatch, said, code, sentence):
    monkeypatch.setenv("FAKE_EXTRA", said)
    monkeypatch.setenv("FAKE_EXTRA_CODE", str(code))
    with pytest.raises(EngineSetupFailed) as caught:
        install(WITH_OPENVINO)
    assert caught.value.message == f"The engine works as before, but OpenVINO does not work on this {sentence}"
    assert caught.value.remedy == "Leave openvino out of EXTRAS to do without it."
    assert find_engine().extras == {} and not switch_of(find_engine().folder).exists()


def test_an_extra_that_cannot_be_downloaded_is_told_with_what_remains(machine, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL_ON", "openvino.lock")
    monkeypatch.setenv("FAKE_SAYS", "No solution found")
    with pytest.raises(EngineSetupFailed) as caught:
        install(WITH_OPENVINO)
    assert caught.value.message.startswith("The engine works as before, but OpenVINO cannot be installed: the package")
    assert caught.value.remedy.endswith("Or leave openvino out of EXTRAS.") and engine_ready()


def test_an_extra_of_an_earlier_release_is_used_until_the_new_one_is_there(machine, monkeypatch):
    before = install(WITH_OPENVINO)
    old = next((Path(before.folder) / "extras").iterdir())
    monkeypatch.setattr(extras, "extra_key", lambda name: f"{name}-new")
    assert find_engine().extras == OPENVINO and install(SetupOptions()).extras == OPENVINO
    monkeypatch.setenv("FAKE_EXTRA", '{"version": "2027.1.0"}')
    assert install(WITH_OPENVINO).extras == {"openvino": "2027.1.0"}
    assert "openvino-new" in switch_of(before.folder).read_text()
    assert old.is_dir()  # a worker may run with it


def test_a_folder_of_an_extra_that_is_gone_or_not_whole_is_made_anew(machine):
    engine = install(WITH_OPENVINO)
    target = Path(engine.folder) / "extras" / release.extra_key("openvino")
    (target / "extra.json").unlink()
    assert find_engine().extras == {}
    assert install(WITH_OPENVINO).extras == OPENVINO
    shutil.rmtree(target.parent)
    assert find_engine().extras == {}
    assert install(WITH_OPENVINO).extras == OPENVINO
    switch_of(engine.folder).unlink()
    assert find_engine().extras == {}
    (machine / "uv.log").unlink()
    assert install(WITH_OPENVINO).extras == OPENVINO and calls(machine) == []  # its packages are whole


def test_the_room_that_an_extra_needs_is_looked_at(machine, monkeypatch):
    install(SetupOptions())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 0.1e9}))
    with pytest.raises(DiskFull, match=r"OpenVINO needs 0\.4 GB, and the disk of '.*home ü' has 0\.1 GB free"):
        install(WITH_OPENVINO)
    assert engine_ready()


def test_extras_of_an_own_interpreter_are_verified(machine, monkeypatch):
    python = str(machine / "engine-python")
    options = SetupOptions(interpreter=python, extras=("openvino",))
    stages = []
    assert install(options, progress=lambda percent, text: stages.append(text)).extras == OPENVINO
    assert stages[-1].endswith("(x86_64), with OpenVINO 2026.4.1.") and calls(machine) == []
    monkeypatch.setenv("FAKE_EXTRA", '{"missing": "openvino", "message": "ModuleNotFoundError"}')
    monkeypatch.setenv("FAKE_EXTRA_CODE", "1")
    with pytest.raises(EngineSetupFailed) as caught:
        install(options)
    assert str(caught.value) == (
        f"'{python}' has no OpenVINO that works (ModuleNotFoundError). "
        "Install the package openvino into it, or leave openvino out of EXTRAS."
    )


def test_python_finds_an_extra_that_is_switched_on_from_its_next_start_on(tmp_path):
    environment = tmp_path / "engine ü"
    venv.create(environment, symlinks=True)
    folder = extras.extra_folder(environment, "openvino")
    (folder / "openvino-1.dist-info").mkdir(parents=True)
    (folder / "openvino-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 1\n")
    (folder / "openvino.py").write_text("here = True\n")
    code = (
        "import importlib.util as u, importlib.metadata as m\n"
        "print(m.version('openvino') if u.find_spec('openvino') else 'none')"
    )

    def found():
        python = lookup.venv_python(environment)
        return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    assert found() == "none"
    extras.switch_on(environment, "openvino")
    assert found() == "1"
    assert extras.installed_extras(environment) == {}  # not verified
    extras.complete(folder, {"version": "1"})
    assert extras.installed_extras(environment) == {"openvino": "1"}
    moved = environment.rename(tmp_path / "moved")
    assert extras.installed_extras(moved) == {"openvino": "1"}
    extras.switch_off(moved, "openvino", extras.extra_folder(moved, "openvino"))
    assert extras.installed_extras(moved) == {}


# --- sentences


@pytest.mark.parametrize(
    ("said", "error", "sentence"),
    [
        ("error: error sending request\n  cause: dns error", EngineSetupFailed, "the network cannot be reached"),
        ("tunnel error: 407 Proxy Authentication Required", EngineSetupFailed, "the proxy refused the connection"),
        ("invalid peer certificate: UnknownIssuer", EngineSetupFailed, "the certificate of the package index is not"),
        ("failed to write: No space left on device (os error 28)", DiskFull, "the disk is full"),
        ("Hash mismatch for `numpy==2.4.6`", EngineSetupFailed, "not the one that this release was tested with"),
        ("HTTP status client error (401 Unauthorized)", EngineSetupFailed, "the package index refused access"),
        ("No solution found when resolving dependencies", EngineSetupFailed, "no build for this machine and Python"),
        ("Permission denied (os error 13)", EngineSetupFailed, "cannot be written, or is still in use"),
        ("something new", EngineSetupFailed, "something new"),
    ],
)
def test_a_failing_download_is_one_sentence_with_a_remedy(machine, monkeypatch, said, error, sentence):
    monkeypatch.setenv("FAKE_FAIL_ON", "engine.lock")
    monkeypatch.setenv("FAKE_SAYS", said)
    with pytest.raises(error) as caught:
        install(SetupOptions())
    assert caught.value.message.startswith("The engine's packages cannot be installed: ")
    assert sentence in caught.value.message and caught.value.remedy and said.splitlines()[0] in caught.value.details
    assert markers() and not engine_ready()


def test_torch_that_cannot_be_had_is_said_with_its_size_and_the_remedy(machine, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL_ON", "torch==")
    monkeypatch.setenv("FAKE_SAYS", "dns error")
    with pytest.raises(EngineSetupFailed) as caught:
        install(SetupOptions())
    assert "torch 2.13.0 (build for cpu, about 200 MB)" in caught.value.message and "WHEELS" in caught.value.remedy


def test_a_full_disk_is_told_before_anything_is_done(machine, monkeypatch):
    usage = type("Usage", (), {"free": 1.25e9})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DiskFull, match=r"needs 3 GB, and the disk of '.*home ü' has 1\.2 GB free"):
        install(SetupOptions())
    assert calls(machine) == [] and not markers()


def test_a_home_that_is_a_file_is_named(machine, monkeypatch):
    (machine / "file").touch()
    monkeypatch.setenv("DEEPSCAPE_HOME", str(machine / "file"))
    with pytest.raises(EngineSetupFailed, match=r"The folder '.*' cannot be made"):
        install(SetupOptions())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"action": "instal"}, "ACTION is 'instal'. Valid values: install, repair, remove."),
        ({"build": "rocm"}, "BUILD is 'rocm'. Valid values: auto, cpu, cuda."),
        ({"interpreter": "/no/python"}, "INTERPRETER '/no/python' is no program."),
        ({"wheels": "/no/folder"}, "WHEELS '/no/folder' is no folder."),
        ({"extras": ("tensorrt",)}, "EXTRAS holds 'tensorrt'. Valid values: openvino."),
        (
            {"action": "remove", "extras": ("openvino",)},
            "ACTION is remove and EXTRAS is openvino: remove takes away the whole engine. Leave EXTRAS empty to remove",
        ),
    ],
)
def test_wrong_options_name_the_value_and_the_valid_ones(options, sentence):
    with pytest.raises(BadInput) as caught:
        SetupOptions(**options)
    assert str(caught.value).startswith(sentence)


def test_causes_are_told_apart():
    assert cause_of("403 Forbidden") == "forbidden" and cause_of("all is well") == ""
    assert explain("X failed", "", Path("/f")).message == "X failed: it said nothing."
    assert explain("X failed", "at https://u:secret@i/", Path("/f")).details == "at https://***@i/"


# --- the user's own interpreter


def test_an_interpreter_of_the_users_own_is_verified_and_nothing_is_installed(machine):
    done = install(SetupOptions(interpreter=str(machine / "engine-python")))
    assert done.ready and done.python == str(machine / "engine-python") and done.device == "cpu"
    assert calls(machine) == [] and not environment.engines_dir().exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("#!/bin/sh\nexit 3\n", "does not run as a Python interpreter"),
        ("no program", "does not run as a Python interpreter"),
        (FAKE_PYTHON.format(facts="", code=0, version="3.9"), "is Python 3.9; the engine needs 3.10"),
        (FAKE_PYTHON.format(facts="", code=0, version="3.11"), "gave no answer"),
        (
            FAKE_PYTHON.format(facts=json.dumps({"missing": "rasterio", "message": "no DLL"}), code=1, version="3.12"),
            r"lacks rasterio \(no DLL\)",
        ),
    ],
)
def test_an_interpreter_that_will_not_do_is_told_why(machine, text, sentence):
    with pytest.raises(EngineSetupFailed, match=sentence):
        install(SetupOptions(interpreter=str(script(machine / "other", text))))


def test_setting_comes_before_variable_before_managed(machine, monkeypatch):
    managed = install(SetupOptions()).python
    mine, other = str(machine / "engine-python"), str(machine / "uv")
    monkeypatch.setenv("DEEPSCAPE_ENGINE_PYTHON", other)
    assert find_engine(mine).python == mine and find_engine(mine).origin == "setting"
    assert find_engine().python == other and find_engine().origin == "environment"
    assert find_engine(environ={}).python == managed
    with pytest.raises(EngineMissing, match="The setting deepscape/engine_python names '/gone'"):
        find_engine("/gone")
    monkeypatch.setenv("DEEPSCAPE_ENGINE_PYTHON", "/gone")
    with pytest.raises(EngineMissing, match="DEEPSCAPE_ENGINE_PYTHON names '/gone'"):
        find_engine()


def test_the_check_for_the_toolbox_is_kept(machine, monkeypatch):
    install(SetupOptions())
    assert engine_ready()
    monkeypatch.setattr(lookup, "find_engine", lambda setting: pytest.fail("looked again"))
    assert engine_ready()


# --- torch


def test_wheels_are_matched_by_version_python_and_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torchwheel.platform, "machine", lambda: "x86_64")
    names = {
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": "cpu",
        "torch-2.13.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl": "cuda",
        "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl": "cuda",
        "torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl": None,
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_aarch64.whl": None,
        "torch-2.13.0+cpu-cp311-cp311-win_amd64.whl": None,
        "torch-2.12.1+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": None,
    }
    for name in names:
        (tmp_path / name).touch()
    found = {path.name: build for path, build in torchwheel.matching_wheels([tmp_path], (3, 11))}
    assert found == {name: build for name, build in names.items() if build}


def test_the_cuda_build_is_never_taken_for_cpu(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torchwheel, "index_build", lambda: "cuda")
    wheels = [(Path("/w/cuda.whl"), "cuda"), (Path("/w/cpu.whl"), "cpu")]
    assert [way.arguments for way in torchwheel.attempts("auto", "cpu", wheels)] == [("--no-deps", "/w/cpu.whl")]
    assert [way.arguments for way in torchwheel.attempts("cpu", "cpu", wheels[:1])] == [
        ("--no-deps", "--torch-backend=cpu", "torch==2.13.0")
    ]


def test_a_gpu_machine_without_network_falls_back_to_a_cpu_wheel(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torchwheel, "index_build", lambda: "cuda")
    ways = torchwheel.attempts("auto", "cuda", [(Path("/w/cpu.whl"), "cpu")])
    assert [way.build for way in ways] == ["cuda", "cuda", "cpu"]
    assert "--torch-backend=auto" in ways[0].arguments and "--constraint" in ways[0].arguments
    assert [way.build for way in torchwheel.attempts("cuda", "cuda", [(Path("/w/cpu.whl"), "cpu")])] == ["cuda", "cuda"]


def test_a_folder_of_wheels_comes_first_and_alone(machine, monkeypatch):
    wheels = machine / "wheels"
    wheels.mkdir()
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    machine_name = torchwheel.platform.machine()
    wheel = wheels / f"torch-2.13.0+cpu-{tag}-{tag}-manylinux_2_28_{machine_name}.whl"
    wheel.touch()
    install(SetupOptions(build="cpu", wheels=str(wheels)))
    torch, lock = calls(machine)[-2:]
    assert torch.endswith(f"--no-deps {wheel}") and lock.endswith("--no-index")
    assert f"UV_FIND_LINKS={wheels}" in (machine / "uv.log.env").read_text().splitlines()


# --- uv


def test_what_pip_is_told_reaches_uv(tmp_path):
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = https://index.example/simple\nfind-links = {tmp_path} /gone\n")
    environ = {
        "PIP_CONFIG_FILE": str(config),
        "PIP_CERT": "/ca.crt",
        "UV_PYTHON": "3.8",
        "PIP_EXTRA_INDEX_URL": "file:///gone",
    }
    result = uv.uv_environment(environ, tmp_path / "cache")
    assert result["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert result["UV_FIND_LINKS"] == str(tmp_path) and result["SSL_CERT_FILE"] == "/ca.crt"
    assert "UV_PYTHON" not in result and "UV_INDEX" not in result
    own = uv.uv_environment({**environ, "UV_INDEX_URL": "https://mine.example"}, tmp_path / "cache")
    assert "UV_DEFAULT_INDEX" not in own and own["UV_INDEX_URL"] == "https://mine.example"


@pytest.fixture
def no_uv(machine, monkeypatch):
    """A machine without uv, with an index that offers a wheel of it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr(f"uv-{release.UV}.data/scripts/uv", FAKE_UV)
    content = archive.getvalue()
    pin = release.UvWheel("uv-1+x-py3-none-any.whl", "sha256:" + hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(uv, "uv_wheel", lambda: pin)
    monkeypatch.delenv("DEEPSCAPE_UV")
    monkeypatch.setattr(uv.shutil, "which", lambda name, path="": None)
    monkeypatch.setattr(installing, "base_pythons", lambda runner: [(fake_python(machine / "base"), (3, 11))])
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:secret@index.example/simple")
    return {
        "https://user:secret@index.example/simple/uv/": b'<a href="../../f/uv-1%2Bx-py3-none-any.whl#sha256=0">uv</a>',
        "https://user:secret@index.example/f/uv-1%2Bx-py3-none-any.whl": content,
    }


def test_uv_comes_from_the_configured_index_through_the_callers_network(machine, no_uv):
    lines = []
    assert install(SetupOptions(), fetch=no_uv.__getitem__, log=lines.append).ready
    own = environment.home() / "uv" / release.UV / "uv"
    assert own.read_text() == FAKE_UV and os.access(own, os.X_OK)
    assert not [line for line in lines if "secret" in line]


def test_a_wheel_of_uv_with_another_hash_is_refused(machine, no_uv):
    address = next(url for url in no_uv if url.endswith(".whl"))
    no_uv[address] += b" "
    with pytest.raises(EngineSetupFailed, match="is not the file that was tested"):
        install(SetupOptions(), fetch=no_uv.__getitem__)
    assert not (environment.home() / "uv" / release.UV).exists()


def test_without_uv_index_and_pip_the_user_is_told_what_to_do(machine, no_uv, monkeypatch):
    script(machine / "base-without-pip", "#!/bin/sh\necho 'No module named pip'\nexit 1\n")
    monkeypatch.setattr(installing, "base_pythons", lambda runner: [(machine / "base-without-pip", (3, 11))])
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    with pytest.raises(EngineSetupFailed, match=r"no package index is configured\. Install uv .*DEEPSCAPE_UV"):
        install(SetupOptions())


def test_an_index_out_of_reach_is_told(machine, no_uv, monkeypatch):
    def fail(url):
        raise OSError("no route to host")

    script(machine / "base-with-pip", "#!/bin/sh\necho 'Temporary failure in name resolution'\nexit 1\n")
    monkeypatch.setattr(installing, "base_pythons", lambda runner: [(machine / "base-with-pip", (3, 11))])
    with pytest.raises(EngineSetupFailed, match="cannot be downloaded: the network cannot be reached"):
        install(SetupOptions(), fetch=fail)


def test_a_uv_that_is_too_old_or_none_is_named(machine, monkeypatch):
    monkeypatch.setenv("FAKE_VERSION", "0.4.1")
    with pytest.raises(EngineSetupFailed, match=r"which is no uv of version 0\.7 or later"):
        install(SetupOptions())
    with pytest.raises(EngineSetupFailed, match="The setting deepscape/uv names '/gone'"):
        install(SetupOptions(uv="/gone"))


# --- pins, places, report


def test_the_lock_pins_every_package_by_hash_and_names_no_index():
    text = release.LOCK.read_text()
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    assert len(pins) >= 40 and all(line.endswith("\\") for line in pins)
    assert "://" not in text and not [line for line in pins if line.startswith(("torch==", "nvidia", "torchmetrics"))]


@pytest.mark.parametrize("extra", release.EXTRAS.values())
def test_the_lock_of_an_extra_pins_only_what_the_engine_has_not(extra):
    text = extra.lock.read_text()
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    assert any(line.startswith(f"{extra.package}==") for line in pins)
    assert all(line.endswith("\\") for line in pins) and "://" not in text
    own = {line.split("==")[0] for line in release.LOCK.read_text().splitlines() if "==" in line}
    assert not {line.split("==")[0] for line in pins} & own


def test_the_key_follows_the_lock_and_not_its_line_ends(tmp_path):
    lock = tmp_path / "engine.lock"
    lock.write_bytes(b"numpy==1\nscipy==2\n")
    unix = release.release_digest(lock)
    (tmp_path / "crlf.lock").write_bytes(b"numpy==1\r\nscipy==2\r\n")
    (tmp_path / "other.lock").write_bytes(b"numpy==1\nscipy==3\n")
    assert release.release_digest(tmp_path / "crlf.lock") == unix != release.release_digest(tmp_path / "other.lock")
    assert release.environment_key((3, 11), "cpu").endswith("-py311-cpu")


def test_folders_lie_in_the_users_data_outside_the_plugin(monkeypatch, tmp_path):
    monkeypatch.delenv("DEEPSCAPE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, environ, expected in (
        ("linux", {}, ".local/share/deepscape"),
        ("linux", {"XDG_DATA_HOME": str(tmp_path / "data")}, "data/deepscape"),
        ("darwin", {}, "Library/Application Support/deepscape"),
        ("win32", {"LOCALAPPDATA": str(tmp_path / "Local")}, "Local/deepscape"),
        ("win32", {"DEEPSCAPE_HOME": str(tmp_path / "own")}, "own"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert places.home(environ) == tmp_path / expected


def test_credentials_are_scrubbed():
    for line, expected in (
        ("http://u:p@proxy:1 https://tok@h/", "http://***@proxy:1 https://***@h/"),
        ("https://i.example/simple?token=abc&x=1", "https://i.example/simple?token=***&x=1"),
        ("--password=pw", "--password=***"),
        ("authorization: basic dTpw end", "authorization: basic *** end"),
        ("numpy==2.4.6 from https://i.example/simple", "numpy==2.4.6 from https://i.example/simple"),
    ):
        assert scrub(line) == expected


def test_the_report_says_the_state_and_no_credentials(machine, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://anna:hunter2@proxy:3128")
    before = status(extra={"QGIS": "3.22.16"})
    assert not before.ready and "Run 'Set up the engine'" in before.reason and "3.22.16" in before.report
    install(SetupOptions())
    after = status()
    assert after.ready and after.size_bytes > 0 and "2.13.0+cpu" in after.report
    assert "http://***@proxy:3128" in after.report and "hunter2" not in after.report + Path(after.log).read_text()
    assert "<pre>Engine" in after.html()


def test_the_end_of_the_log_tells_nothing_twice(tmp_path):
    log, time_of = tmp_path / "setup.log", "2026-11-21 15:{:02}:26,022 "
    lines = [
        "an old line",
        "Downloading torch",
        *["$ python3 -I -c 'import ssl'", "  version 3.11"] * 27,
        "No route to host",
    ]
    log.write_text("".join(f"{time_of.format(number)}{line}\n" for number, line in enumerate(lines)))
    assert end_of(log, 4) == [
        "2026-11-21 15:01:26,022 Downloading torch",
        "2026-11-21 15:54:26,022 $ python3 -I -c 'import ssl' (the last of 27)",
        "2026-11-21 15:55:26,022   version 3.11 (the last of 27)",
        "2026-11-21 15:56:26,022 No route to host",
    ]
    log.write_text("")
    assert end_of(log, 4) == []


@pytest.mark.engine_setup
@pytest.mark.timeout(900)
def test_a_real_environment_is_built_and_used(tmp_path, monkeypatch):
    # Beside the managed environment's cache nothing is downloaded twice.
    monkeypatch.setenv("UV_CACHE_DIR", str(places.home() / "cache" / "uv"))
    monkeypatch.setenv("DEEPSCAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DEEPSCAPE_ENGINE_PYTHON", raising=False)
    lookup.forget()
    done = install(SetupOptions(build="cpu"))
    assert done.ready and done.versions["torch"].startswith("2.13.0") and done.size_bytes > 5e8
    code = (
        "import torch, rasterio, lightning_fabric, importlib.util as util\n"
        "print(util.find_spec('torchmetrics'), util.find_spec('pytest'))"
    )
    said = subprocess.run([find_engine().python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["None", "None"]
    start = time.monotonic()
    assert install(SetupOptions(build="cpu")).ready
    assert time.monotonic() - start < 5
    lookup.forget()


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
