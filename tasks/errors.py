"""The errors that a user may meet: one sentence that names the value, and a remedy.

They are raised on either side of the seam and travel through it as an ``error`` message.
"""

from __future__ import annotations


class DeepscapeError(Exception):
    """Base of every error with a sentence for the user.

    Attributes:
        message: one sentence that names the value at fault.
        remedy: one sentence that says what to do; may be empty.
        kind: machine-readable kind, the ``kind`` of the protocol's ``error`` message.
        details: traceback or log tail, for the debug panel; may be empty.
    """

    kind = "internal"

    def __init__(self, message: str, remedy: str = "", details: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class BadInput(DeepscapeError):  # noqa: N818 - reads as a sentence at the raise
    """What the user gave cannot be used. The worker stays warm after it."""

    kind = "input"


class EngineMissing(DeepscapeError):  # noqa: N818
    """No working engine environment was found."""

    kind = "engine_missing"


class EngineSetupFailed(DeepscapeError):  # noqa: N818
    """Installing, repairing or verifying the engine's environment failed."""

    kind = "engine_setup"


class DiskFull(DeepscapeError):  # noqa: N818
    """No room for an output."""

    kind = "disk_full"


class WorkerCrashed(DeepscapeError):  # noqa: N818
    """The worker ended without a final message."""

    kind = "crash"


class JobFailed(DeepscapeError):  # noqa: N818
    """The engine raised an error that no code foresaw: a defect of ours, or of a library."""

    kind = "internal"


class JobCancelled(DeepscapeError):  # noqa: N818
    """The user cancelled the job; the remedy says what is kept of it, where something is."""

    kind = "cancelled"

    def __init__(self, message: str = "Cancelled.", remedy: str = "", details: str = "") -> None:
        super().__init__(message, remedy, details)


# Those whose sentence says all to whoever can mend it; a traceback would bury it.
MENDABLE = (BadInput, DiskFull)

ERROR_KINDS = {
    cls.kind: cls
    for cls in (BadInput, EngineMissing, EngineSetupFailed, DiskFull, WorkerCrashed, JobFailed, JobCancelled)
}


def error_from_message(kind: str, message: str, remedy: str = "", details: str = "") -> DeepscapeError:
    """Rebuild the error of a protocol ``error`` message; an unknown kind becomes `JobFailed`."""
    return ERROR_KINDS.get(kind, JobFailed)(message, remedy, details)


def less_memory(kind: str) -> str:
    """Return what to do where a job of this kind found too little memory."""
    if kind == "classify":
        return (
            "Close other programs and run it again: a map in a file of its own continues. Or give a smaller MEMORY: "
            "with that it may begin anew."
        )
    return "Close other programs, choose a smaller batch size or a smaller part of the image, and run it again."
