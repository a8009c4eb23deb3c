"""One budget for several images: the rules of each strategy and mode, and the reference's files beside ours."""

import subprocess

import pytest
from deepscape.engine.polygonstatistics import write_statistics
from deepscape.engine.samplingrates import sampling_rates
from deepscape.tasks import jobfiles
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import SamplingRates

IMAGES = [
    {"1": 3711, "2": 550, "3": 7, "5": 0},
    {"1": 1200, "2": 61, "4": 333},
    {"1": 10, "2": 2000, "3": 1000, "4": 90, "ä b": 375},
]
BY_CLASS = ["#c n\n1\t1001\n2\t100\n3\t2000\n4\t50\nä b\t20\n"]
BY_IMAGE = ["1 100\n2 10\n", "1 5000\n4 7\n", "2;17\n3;90\n"]


@pytest.fixture
def statistics(tmp_path):
    return tuple(write_statistics(str(tmp_path / f"s{n}.xml"), counts, {}) for n, counts in enumerate(IMAGES))


@pytest.fixture
def rates_files(tmp_path):
    def write(texts):
        for number, text in enumerate(texts):
            (tmp_path / f"wanted{number}.csv").write_text(text, encoding="utf-8")
        return tuple(str(tmp_path / f"wanted{number}.csv") for number in range(len(texts)))

    return write


def tables(job, context=None):
    """Run the job and return class -> required of every image."""
    folder = sampling_rates(job, context or Context()).output_folder
    found = []
    for number in range(1, len(job.statistics) + 1):
        with open(f"{folder}/rates_{number}.csv", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file][1:]
        found.append({row[0]: int(row[1]) for row in rows})
    return found


@pytest.mark.parametrize(
    ("strategy", "mode", "expected"),
    [
        ("constant", "proportional", [{"1": 527, "2": 147, "3": 4}, {"1": 170, "2": 16, "4": 551}]),
        ("upto", "proportional", [{"1": 527, "2": 147, "3": 4}, {"1": 170, "2": 16, "4": 333}]),
        ("constant", "equal", [{"1": 233, "2": 233, "3": 233}, {"1": 233, "2": 233, "4": 233}]),
        ("upto", "equal", [{"1": 233, "2": 233, "3": 7}, {"1": 233, "2": 61, "4": 233}]),
        ("smallest", "proportional", [{"1": 282, "2": 78, "3": 2}, {"1": 91, "2": 8, "4": 295}]),
        ("percent", "proportional", [{"1": 1856, "2": 275, "3": 4}, {"1": 600, "2": 31, "4": 167}]),
        ("all", "equal", [{"1": 3711, "2": 550, "3": 7}, {"1": 1200, "2": 61, "4": 333}]),
    ],
)
def test_required_samples(tmp_path, statistics, strategy, mode, expected):
    job = SamplingRates(statistics, str(tmp_path / "new" / "rates"), strategy, mode, 700)
    (tmp_path / "new").mkdir()
    found = [{name: number for name, number in table.items() if number} for table in tables(job)]
    assert found[:2] == expected
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["rates"]


def test_custom_and_warnings(tmp_path, statistics, rates_files):
    context = Context()
    job = SamplingRates(statistics, str(tmp_path / "r"), "constant", "custom", counts=(700, 20, 3))
    assert tables(job, context)[1] == {"1": 20, "2": 20, "4": 20}
    assert context.warnings == ["Image 1 has fewer pixels than are asked of class 2, 3: all are taken."]
    context = Context()
    job = SamplingRates(statistics, str(tmp_path / "r"), "byclass", rates_files=rates_files(["1;3\n9;4\n"]))
    assert tables(job, context)[0] == {"1": 2, "2": 0, "3": 0, "4": 0, "5": 0, "ä b": 0}
    assert context.warnings == ["RATES_FILES lists 9, which no image has."]


def test_files_of_an_earlier_run_with_more_images_go(tmp_path, statistics):
    folder, context = tmp_path / "r", Context()
    sampling_rates(SamplingRates(statistics, str(folder)), context)
    (folder / "rates_4.csv").write_text("1;20\n", encoding="utf-8")
    (folder / "rates_03.csv").write_text((folder / "rates_3.csv").read_text(encoding="utf-8"), encoding="utf-8")
    logged = []
    context.log = logged.append
    sampling_rates(SamplingRates(statistics[:2], str(folder)), context)
    assert sorted(path.name for path in folder.iterdir()) == [
        "rates_03.csv", "rates_1.csv", "rates_2.csv", "rates_4.csv",
    ]  # fmt: skip
    assert logged[-1] == "'rates_3.csv' of an earlier run with more images is removed."


def test_bad_jobs_are_refused(tmp_path, statistics):
    folder = str(tmp_path / "r")
    for fields, message in (
        ({"strategy": "byclass"}, "needs 1 RATES_FILES; 0 are given"),
        ({"strategy": "byclass", "mode": "custom", "rates_files": ("a",)}, "needs 3 RATES_FILES; 1 are given"),
        ({"strategy": "total", "mode": "custom", "counts": (1, 2)}, "needs 3 COUNTS, one per image; 2 are given"),
        ({"strategy": "percent", "mode": "custom", "counts": (1, 0.2, 2)}, "COUNTS is 2, which is no share"),
        ({"strategy": "total", "mode": "custom", "counts": (1, 2.5, 2)}, r"COUNTS holds 2\.5"),
        ({"mode": "both"}, "MODE 'both' is not a valid choice"),
    ):
        with pytest.raises(BadInput, match=message):
            SamplingRates(statistics, folder, **fields)
    with pytest.raises(BadInput, match="INPUTS is 0"):
        SamplingRates((), folder)
    (tmp_path / "s0.xml").write_text("<a/>")
    with pytest.raises(BadInput, match=r"'s0\.xml' is no file of polygon statistics"):
        sampling_rates(SamplingRates(statistics, folder), Context())
    assert not (tmp_path / "r").exists()


def test_a_job_file_moves_with_its_lists_of_files(tmp_path, statistics):
    path = jobfiles.write_job_file(SamplingRates(statistics, str(tmp_path / "r")))
    assert '"./s0.xml"' in open(path, encoding="utf-8").read()
    assert jobfiles.read_job_file(path) == SamplingRates(statistics, str(tmp_path / "r"))
    assert jobfiles.input_paths(jobfiles.read_job_file(path)) == list(statistics)


# --- beside the reference --------------------------------------------------------------------------------------------


@pytest.mark.otb
@pytest.mark.parametrize("mode", ["proportional", "equal", "custom"])
@pytest.mark.parametrize("strategy", ["constant", "byclass", "percent", "total", "smallest", "all"])
def test_files_are_those_of_the_reference(tmp_path, statistics, rates_files, strategy, mode):
    custom = mode == "custom"
    numbers = {"percent": (0.7, 0.1, 0.003)}.get(strategy, (1001, 50, 7)) if custom else ()
    single = {"percent": "0.7"}.get(strategy, "1001")
    files = rates_files(BY_IMAGE if custom else BY_CLASS) if strategy == "byclass" else ()
    argument = {"constant": "constant.nb", "percent": "percent.p", "total": "total.v", "byclass": "byclass.in"}
    command = ["otbcli_MultiImageSamplingRate", "-il", *statistics, "-mim", mode, "-strategy", strategy]
    if strategy in argument:
        given = list(files) or [" ".join(f"{number:g}" for number in numbers) if custom else single]
        command += [f"-strategy.{argument[strategy]}", *given]
    subprocess.run([*command, "-out", str(tmp_path / "otb.csv")], check=True, capture_output=True)
    job = SamplingRates(statistics, str(tmp_path / "r"), strategy, mode, 1001, 0.7, numbers, files)
    sampling_rates(job, Context())
    for number in range(1, 4):
        ours = (tmp_path / "r" / f"rates_{number}.csv").read_text(encoding="utf-8")
        assert ours == (tmp_path / f"otb_{number}.csv").read_text(encoding="utf-8")
