"""Messages as lines of JSON."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from deepscape.tasks import protocol
from deepscape.tasks.classtable import ClassEntry


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), "nan"),
        (float("inf"), "inf"),
        (np.bool_(True), True),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        ((1, None, "a"), [1, None, "a"]),
        ({np.uint8(7): {2, 1}}, {"7": [1, 2]}),
        (Path("/a/b"), "/a/b"),
        (ClassEntry(1, "Water", "#0000ff"), {"value": 1, "name": "Water", "colour": "#0000ff"}),
    ],
)
def test_values_are_made_plain(value, plain):
    made = protocol.jsonable(value)
    assert made == plain
    assert type(made) is type(plain)


def test_what_has_no_plain_form_is_an_error():
    with pytest.raises(TypeError, match="object has no plain form"):
        protocol.encode({"type": "result", "result": object()})


@pytest.mark.parametrize("text", ["Łódź ü 日本.tif", "two\nlines", "surrogate \udcff"])
def test_a_message_is_one_line_and_comes_back(text):
    line = protocol.encode({"type": "log", "text": text})
    assert line.count(b"\n") == 1
    assert protocol.decode(line[:-1]) == {"type": "log", "text": text}


@pytest.mark.parametrize(
    "line", [b"", b"noise", b"[1]", b"3", b'{"no": "type"}', b'{"type": 3}', b"\xff\xfe", b'{"type']
)
def test_what_is_no_message_is_recognised(line):
    assert protocol.decode(line) is None


def test_lines_are_put_together_from_pieces():
    read, write = os.pipe()
    for piece in (b"one\ntw", b"o\n", b"\nrest"):
        os.write(write, piece)
    os.close(write)
    reader = protocol.LineReader(read)
    assert [reader.readline() for _ in range(4)] == [b"one", b"two", b"", b"rest"]
    with pytest.raises(EOFError):
        reader.readline()
    os.close(read)


def test_a_message_larger_than_the_pipe_arrives_whole():
    read, write = os.pipe()
    message = {"type": "result", "text": "x" * 3_000_000}
    sender = threading.Thread(target=protocol.write_all, args=(write, protocol.encode(message)))
    sender.start()
    assert protocol.decode(protocol.LineReader(read).readline()) == message
    sender.join()
    os.close(read)
    os.close(write)


def test_a_line_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(protocol, "LONGEST_LINE", 1000)
    read, write = os.pipe()
    os.write(write, b"y" * 2000)
    assert set(protocol.LineReader(read).readline()) == {ord("y")}
    os.close(read)
    os.close(write)


def test_the_version_is_that_of_the_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "PLUGIN_FOLDER", tmp_path)
    assert protocol.plugin_version() == "0.0.0"
    (tmp_path / "metadata.txt").write_text("[general]\nqgisMinimumVersion=3.22\nversion=1.2.3\n")
    assert protocol.plugin_version() == "1.2.3"
