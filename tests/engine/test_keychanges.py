"""What sets two mapping jobs apart, in the words of the parameters."""

from dataclasses import replace

import pytest
from deepscape.engine.journal import job_key
from deepscape.engine.keychanges import changes
from deepscape.tasks.jobs import Classify, Extent, RasterSource, VectorSource

JOB = Classify(RasterSource("/data/a.tif"), "m.safetensors", "map.tif", threshold=0.6)


def key(job, **facts):
    given = {"models": [job.model], "runtime": "ONNX on cpu", "precision": "full", "windows": [(0, 0, 2, 3)]}
    return job_key(job, **{**given, "products": ["classes uint8"], **facts})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"threshold": 0.5}, ("THRESHOLD was 0.6, is 0.5",)),
        ({"threshold": None}, ("THRESHOLD was 0.6, is unset",)),
        ({"box": (0, 10, 20, 30), "tta": "flips"}, ("BOX was unset, is 0:10:20:30", "TTA was none, is flips")),
        ({"extent": Extent(0, 0, 1, 1)}, ("EXTENT is another",)),
        ({"continue_anyway": True}, ("CONTINUE was no, is yes",)),
        ({"source": RasterSource("/other/b.tif", bands=(1, 3))},
         ("INPUT was 'a.tif', is 'b.tif'", "BANDS was unset, is 1:3")),
        ({"source": RasterSource("/other/a.tif")}, ("INPUT is another",)),
        ({"mask_layer": VectorSource("/data/v.gpkg")}, ("MASK is another",)),
        ({"source": RasterSource("/data/a.tif", crs="PROJCS[" + "x" * 400)}, ("CRS is another",)),
    ],
)  # fmt: skip
def test_parameters_are_named_with_both_values(fields, words):
    assert changes(key(JOB), key(replace(JOB, **fields))) == words


def test_everything_else_is_named():
    before = key(JOB)
    assert changes(before, key(JOB, runtime="torch on cpu")) == ("the runtime was ONNX on cpu, is torch on cpu",)
    assert changes(before, key(JOB, precision="fast")) == ("PRECISION was full, is fast",)
    assert changes(before, key(JOB, windows=[(0, 0, 9, 9)])) == ("the image is cut into other windows",)
    more = replace(JOB, more_models=("n.safetensors",))
    both = key(more, models=[JOB.model, "n.safetensors"])
    assert changes(before, {**both, "model": ["", ""]}) == ("MODELS are others",)
    assert changes(before, {**before, "model": ["sha256:1"]}) == ("MODEL is another or has changed",)
    # Another box has other windows, too: the box alone is told of.
    assert changes(before, key(replace(JOB, box=(0, 0, 1, 1)), windows=[(0, 0, 1, 1)])) == (
        "BOX was unset, is 0:0:1:1",
    )  # fmt: skip
    assert changes(before, before) == () and changes("no key", before) == ()
