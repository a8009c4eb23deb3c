"""A worker that does no work: it speaks the protocol and plays what a test has written down for it.

Use it in a test of the QGIS side, with any Python as the "engine" (nothing but the standard library is needed)::

    monkeypatch.setattr(client.pool(), "script", str(Path(__file__).with_name("fake_worker.py")))
    monkeypatch.setenv("DEEPSCAPE_FAKE_WORKER", str(tmp_path / "play.json"))   # read again at every job
    (tmp_path / "play.json").write_text(json.dumps({"classify": [{"result": {"pixels": 12}}]}))

The play is ``{kind: [step, ...]}``, with ``"*"`` for every other kind; without a play (or a kind in it) a job gets
three progress messages and a result. ``"record"`` names a file that every job envelope is appended to as one line of
JSON. ``"hello"`` replaces fields of the greeting (it is read at the start only). Steps:

- ``{"send": {"type": "progress", "done": 1, "total": 2, ...}}`` any message; the job's id is added
- ``{"result": {field: value, ...}}`` the final result; fields that are not given get a value of the right type, outputs
  the job's own paths
- ``{"error": {"kind": "input", "message": "...", "remedy": "..."}}``, ``{"cancelled": "what is kept"}`` the other final
  messages
- ``{"sleep": seconds}`` ends at once with ``cancelled`` when the job is cancelled; ``{"hang": seconds}`` does not
- ``{"until_stopped": seconds}`` ends as soon as the job is asked to stop; with an error when it is not
- ``{"exit": code}``, ``{"signal": number}`` a crash; ``{"log": text}`` to the log
- ``{"print": text}`` noise on the channel
- ``{"copy": [from, to]}``, ``{"write": [path, text]}``, ``{"mkdir": path}`` files

Strings that start with ``$`` are fields of the job: ``"$output"``.
"""

import dataclasses
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
import typing
from pathlib import Path

VARIABLE = "DEEPSCAPE_FAKE_WORKER"


def _load_seam():
    script = Path(__file__).resolve().parents[2] / "tasks" / "run_worker.py"
    spec = importlib.util.spec_from_file_location("run_worker", script)
    run_worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run_worker)
    channel = run_worker.take_channel()
    run_worker.load_package()
    return channel


def read_play():
    path = os.environ.get(VARIABLE)
    return json.loads(Path(path).read_text(encoding="utf-8")) if path and Path(path).exists() else {}


DEFAULT = [{"send": {"type": "progress", "done": n, "total": 2, "stage": "working", "unit": "steps"}} for n in range(3)]


class FakeWorker:
    def __init__(self, protocol_in, protocol_out):
        from deepscape.tasks import jobs, protocol, serial, worker

        self.jobs, self.protocol, self.serial, self.worker = jobs, protocol, serial, worker
        self.reader = protocol.LineReader(protocol_in)
        self.out = protocol_out
        self.cancelled = threading.Event()
        self.stopped = threading.Event()
        self.ended = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.queue = []

    def send(self, message):
        self.protocol.write_all(self.out, self.protocol.encode(message))

    def watch(self):
        try:
            while True:
                message = self.protocol.decode(self.reader.readline())
                if message["type"] == "job":
                    self.cancelled.clear()
                    self.stopped.clear()
                    self.queue.append(message)
                    self.waiting.release()
                elif message["type"] == "cancel":
                    self.cancelled.set()
                elif message["type"] == "stop":
                    self.stopped.set()
        except EOFError:
            self.cancelled.set()
            self.ended.set()
            self.waiting.release()
            time.sleep(5)
            self.worker.end_group()

    def serve(self):
        hello = {
            "type": "hello",
            "protocol": self.protocol.PROTOCOL,
            "version": self.protocol.plugin_version(),
            "python": sys.version.split()[0],
            "pid": os.getpid(),
        }
        self.send({**hello, **read_play().get("hello", {})})
        threading.Thread(target=self.watch, daemon=True).start()
        while True:
            self.waiting.acquire()
            if self.ended.is_set():
                return
            self.play(self.queue.pop(0))

    def play(self, envelope):
        play = read_play()
        if play.get("record"):
            with open(play["record"], "a", encoding="utf-8") as file:
                file.write(json.dumps(envelope) + "\n")
        steps = play.get(envelope["kind"], play.get("*", DEFAULT))
        for step in [*steps, {"result": {}}]:
            ((action, value),) = step.items()
            final = getattr(self, "do_" + action)(self.resolve(value, envelope["job"]), envelope)
            if final is not None:
                self.send({"memory": 50_000_000, "device": "cpu", "id": envelope["id"], **final})
                return

    def resolve(self, value, job):
        if isinstance(value, str) and value.startswith("$"):
            return job[value[1:]]
        if isinstance(value, dict):
            return {key: self.resolve(item, job) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, job) for item in value]
        return value

    def do_send(self, value, envelope):
        self.send({"rate": None, "remaining": None, **value, "id": envelope["id"]})

    def do_result(self, value, envelope):
        job = self.jobs.job_from_plain(envelope)
        hints = typing.get_type_hints(job.result_type)
        fields = {}
        for field in dataclasses.fields(job.result_type):
            kind = typing.get_origin(hints[field.name]) or hints[field.name]
            empty = {str: "", int: 0, float: 0.0, bool: False, dict: {}, tuple: []}.get(kind)
            fields[field.name] = getattr(job, field.name) if field.name in job.outputs else empty
        return {"type": "result", "result": {**self.serial.to_plain(fields), **value}}

    def do_error(self, value, envelope):
        return {"type": "error", "kind": "internal", "message": "", "remedy": "", "traceback": "", **value}

    def do_cancelled(self, value, envelope):
        return {"type": "cancelled", "remedy": value}

    def do_sleep(self, value, envelope):
        return {"type": "cancelled"} if self.cancelled.wait(value) else None

    def do_until_stopped(self, value, envelope):
        return None if self.stopped.wait(value) else self.do_error({"message": "nobody asked to stop"}, envelope)

    def do_hang(self, value, envelope):
        time.sleep(value)

    def do_exit(self, value, envelope):
        os._exit(value)

    def do_signal(self, value, envelope):
        os.kill(os.getpid(), value)
        time.sleep(5)

    def do_log(self, value, envelope):
        sys.stderr.write(value + "\n")
        sys.stderr.flush()

    def do_print(self, value, envelope):
        self.protocol.write_all(self.out, value.encode() + b"\n")

    def do_copy(self, value, envelope):
        source, target = value
        copy = shutil.copytree if os.path.isdir(source) else shutil.copyfile
        copy(source, target)

    def do_write(self, value, envelope):
        path, text = value
        Path(path).write_text(text, encoding="utf-8")

    def do_mkdir(self, value, envelope):
        os.makedirs(value, exist_ok=True)


if __name__ == "__main__":
    FakeWorker(*_load_seam()).serve()
