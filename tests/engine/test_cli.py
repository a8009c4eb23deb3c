"""``run_worker.py run FILE.job.json``: repeating saved jobs by hand, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deepscape.tasks import cli

WORKER_JOBS = Path(__file__).with_name("worker_jobs.py")
RUN_WORKER = Path(__file__).resolve().parents[2] / "tasks" / "run_worker.py"

# The command line with the test jobs: run_worker.py's own way, after the jobs have been made known.
SCRIPT = """
import importlib.util, os, sys
def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
run_worker = load("run_worker", {run_worker!r})
run_worker.load_package()
load("deepscape.worker_jobs", {jobs!r})
sys.exit(run_worker.main())
"""


@pytest.fixture
def run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(run_worker=str(RUN_WORKER), jobs=str(WORKER_JOBS)))

    def start(*jobs, **environ):
        files = []
        for number, job in enumerate(jobs):
            files.append(str(tmp_path / f"job {number}.job.json"))
            Path(files[-1]).write_text(json.dumps({"kind": "trick", "job": job}))
        return subprocess.Popen(
            [sys.executable, str(script), "run", *files],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )

    return start


def test_the_result_is_one_line_of_json_and_the_rest_goes_to_the_log(run):
    process = run({"trick": "say", "text": "Łódź"}, {"trick": "print_everywhere"})
    out, err = process.communicate()
    assert process.returncode == 0
    first, second = [json.loads(line) for line in out.splitlines()]
    assert first["text"] == "Łódź"
    assert first["value"] == "nan"
    assert second["text"] == "from a child\n"
    for part in ("a log line\n", "Warning: a warning\n", "train/loss = 0.25 (step 3)\n", "tiles: 5 of 5 pixels"):
        assert part in err
    assert "written to descriptor 1" in err


def test_an_error_is_a_sentence_and_exit_code_1_and_later_jobs_run(run):
    process = run({"trick": "fail", "text": "input"}, {"trick": "say"})
    out, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith(f"{process.args[-2]}: Class 7 is unknown. Take class 1.\n")
    assert "Traceback" not in err
    assert len(out.splitlines()) == 1


def test_a_defect_comes_with_its_traceback(run):
    process = run({"trick": "fail", "text": "value"})
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" in err
    assert "The job 'trick' failed: ValueError: no good." in err.splitlines()[-1]


def test_a_full_disk_is_one_sentence_without_a_traceback(run):
    process = run({"trick": "fail", "text": "room"})
    _, err = process.communicate()
    assert process.returncode == 1 and "Traceback" not in err and "No room is left in '" in err.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_cancel_in_good_order(run, number):
    process = run({"trick": "steps"})
    process.stderr.readline()
    begun = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert err.endswith(": cancelled.\n")
    assert time.monotonic() - begun < 1.5


def test_what_is_kept_of_a_cancelled_job_is_said(run):
    process = run({"trick": "keep_some", "text": "2 of 3 epochs are kept."})
    assert process.communicate()[1].endswith(": cancelled. 2 of 3 epochs are kept.\n") and process.returncode == 130


@pytest.mark.slow
def test_a_signal_ends_a_job_that_does_not_listen_and_removes_what_is_half_written(run, tmp_path):
    process = run({"trick": "part", "output": str(tmp_path / "map.tif")})
    process.stderr.readline()
    assert (tmp_path / ".map.0123abcd.part.tif").exists()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 130
    assert list(tmp_path.glob("*map*")) == []


def test_only_rank_0_runs_a_job_that_is_not_distributed(run):
    out, err = run({"trick": "say"}, RANK="1", WORLD_SIZE="2").communicate()
    assert (out, err) == ("", "")
    process = run({"trick": "environment"}, RANK="0", WORLD_SIZE="2", MASTER_ADDR="localhost")
    facts = json.loads(process.communicate()[0])["facts"]
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(facts["environ"])


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, 0),
        ({"RANK": "3"}, 3),
        ({"SLURM_PROCID": "2"}, 2),
        ({"RANK": "0", "SLURM_PROCID": "5"}, 0),
        ({"RANK": ""}, 0),
    ],
)
def test_ranks(environ, rank):
    assert cli.rank_of(environ) == rank


def test_a_missing_file_and_the_help(tmp_path, capfd):
    assert cli.main([str(tmp_path / "none.job.json")]) == 1
    assert "cannot be read: No such file or directory." in capfd.readouterr().err
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert "FILE.job.json" in capfd.readouterr().err


def test_pictures_are_not_printed(capfd):
    cli.printer(0, True)({"type": "picture", "name": "validation 1", "png": "aGVsbG8=", "step": 1, "caption": ""})
    assert capfd.readouterr().err == ""


def test_progress_on_a_log_is_sparse(capfd):
    now = [0.0]
    show = cli.printer(0, False, lambda: now[0])
    for done in range(101):
        show(
            {
                "type": "progress",
                "done": done,
                "total": 100,
                "stage": "tiles",
                "unit": "",
                "rate": 1.0,
                "remaining": 9.0,
            }
        )
        now[0] += 0.5
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[0] == "tiles: 0 of 100, 1/s, 9 s remain"
    assert lines[-1].startswith("tiles: 100 of 100")
