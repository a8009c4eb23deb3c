"""Child processes: what their environment keeps and drops, their priority, and that none survives a kill."""

import os
import subprocess
import sys
import time

from deepscape.tasks.processes import clean_environment, kill_tree, start_process


def test_variables_of_qgis_and_python_are_dropped_and_the_others_kept():
    environ = {
        "PYTHONHOME": "/usr", "PYTHONPATH": "/usr/share/qgis/python", "PROJ_LIB": "/x", "PROJ_DATA": "/x",
        "GDAL_DATA": "/x", "QGIS_PREFIX_PATH": "/usr", "QT_PLUGIN_PATH": "/x", "LD_LIBRARY_PATH": "/x",
        "LD_PRELOAD": "x.so", "HTTPS_PROXY": "http://proxy:3128", "no_proxy": "localhost",
        "SSL_CERT_FILE": "/etc/ca.crt", "REQUESTS_CA_BUNDLE": "/etc/ca.crt", "CUDA_VISIBLE_DEVICES": "1",
        "SLURM_JOB_ID": "7", "PATH": "/usr/bin", "HOME": "/home/u", "UV_INDEX_URL": "file:///mirror",
    }  # fmt: skip
    assert set(clean_environment(environ, windows=False)) == {
        "HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID",
        "PATH", "HOME", "UV_INDEX_URL",
    }  # fmt: skip


def test_folders_of_qgis_leave_the_windows_path():
    environ = {
        "OSGEO4W_ROOT": "D:\\gis\\root",
        "Path": "C:\\QGIS 3.34.1\\bin;D:/gis/root/apps/bin;C:\\Windows\\system32;C:\\OSGeo4W\\bin;C:\\Tools",
    }
    assert clean_environment(environ, windows=True) == {"Path": "C:\\Windows\\system32;C:\\Tools"}


def test_a_child_has_low_priority_and_dies_with_its_own_children():
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "sys.stdin.readline()\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0), child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = start_process([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write("go\n")
    process.stdin.flush()
    niceness, grandchild = (int(part) for part in process.stdout.readline().split())
    assert niceness == max(10, os.getpriority(os.PRIO_PROCESS, 0))
    kill_tree(process)
    assert process.poll() is not None
    deadline = time.monotonic() + 5
    while _is_alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_alive(grandchild)
    process.stdin.close()
    process.stdout.close()


def test_killing_a_process_that_ended_is_no_error():
    process = start_process([sys.executable, "-c", "pass"])
    process.wait()
    kill_tree(process, grace_s=1.0)
    assert process.returncode == 0


def test_the_grace_lets_a_process_end_by_itself():
    script = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(60)"
    )
    process = start_process([sys.executable, "-c", script], stdout=subprocess.PIPE)
    process.stdout.readline()
    kill_tree(process, grace_s=5.0)
    assert process.returncode == 7
    process.stdout.close()


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
