"""A context that the tests of the engine ask what it was told."""

from deepscape.tasks.context import Context


class Log(Context):
    """Keeps the log as well as the warnings."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def log(self, text):
        self.lines.append(text)
