"""Outputs: the sentences for writes that fail."""

from deepscape.engine.outputfiles import writing_error
from deepscape.tasks.errors import BadInput, DiskFull


def test_failed_writes_have_their_sentence(tmp_path):
    full = OSError(28, "No space left on device")
    assert isinstance(writing_error(str(tmp_path / "o.tif"), full), DiskFull)
    assert isinstance(writing_error(str(tmp_path / "o.tif"), RuntimeError("database or disk is full")), DiskFull)
    denied = writing_error(str(tmp_path / "o.tif"), PermissionError(13, "denied"))
    assert isinstance(denied, BadInput) and "cannot be written" in str(denied)
    other = ValueError("else")
    assert writing_error(str(tmp_path / "o.tif"), other) is other
