"""Job files beside outputs, checks of outputs before the work, leftovers, the model store."""

import json
import os
from pathlib import Path

import pytest
from deepscape.engine.outputfiles import part_name
from deepscape.tasks import jobfiles
from deepscape.tasks.classtable import Legend
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import (
    Assess,
    Classify,
    ClassifyResult,
    ExtractPatches,
    RasterSource,
    SelectSamples,
    TrainClassifier,
    TrainSegmenter,
    VectorSource,
)
from deepscape.tasks.protocol import plugin_version


@pytest.fixture
def folder(tmp_path):
    """A project folder with a scene in another folder beside it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "scène 1.tif").write_text("")
    (tmp_path / "project" / "model.safetensors").write_text("")
    return tmp_path


def classify(folder, **changes):
    fields = {
        "source": RasterSource(str(folder / "scenes" / "scène 1.tif"), (str(folder / "scenes" / "none.tif"),)),
        "model": str(folder / "project" / "model.safetensors"),
        "output": str(folder / "project" / "map.tif"),
        **changes,
    }
    return Classify(**fields)


@pytest.mark.parametrize(
    ("output", "name"),
    [("/a/map.tif", "/a/map.job.json"), ("/a/b.c.gpkg", "/a/b.c.job.json"), ("/a/patches/", "/a/patches.job.json")],
)
def test_names(output, name):
    assert jobfiles.job_file_name(output) == name


def test_a_folder_with_a_dot_keeps_its_whole_name(tmp_path):
    (tmp_path / "patches.v2").mkdir()
    assert jobfiles.job_file_name(str(tmp_path / "patches.v2")) == str(tmp_path / "patches.v2.job.json")


def test_two_outputs_that_differ_in_their_suffix_keep_a_job_file_each(folder):
    project = folder / "project"
    model, raster = project / "model.safetensors", project / "model.tif"
    training = TrainClassifier(str(project), str(model))
    usual = str(project / "model.job.json")
    assert jobfiles.write_job_file(training) == usual
    raster.write_text("")
    mapping = classify(folder, output=str(raster))
    assert jobfiles.write_job_file(mapping) == str(project / "model.tif.job.json")
    assert jobfiles.read_job_file(usual) == training
    assert jobfiles.read_job_file(str(project / "model.tif.job.json")) == mapping
    # The same output made by another job, and one whose neighbour is gone, take the usual name.
    assert jobfiles.write_job_file(classify(folder, model="", output=str(model))) == usual
    model.unlink()
    assert jobfiles.write_job_file(mapping) == usual
    assert not (project / "model.tif.job.json").exists()


def test_a_job_file_is_relative_and_moves_with_its_folders(folder, tmp_path):
    job = classify(folder, source=RasterSource(str(folder / "scenes" / "scène 1.tif"), bands=(1, 2)))
    path = jobfiles.write_job_file(job)
    assert path == str(folder / "project" / "map.job.json")
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    assert content["job"]["source"]["path"] == "../scenes/scène 1.tif"
    assert content["job"]["model"] == "./model.safetensors"
    assert content["job"]["output"] == "./map.tif"
    assert content["deepscape"] == plugin_version()
    assert content["kind"] == "classify"
    assert jobfiles.read_job_file(path) == job
    moved = tmp_path / "moved"
    moved.mkdir()
    (folder / "project").rename(moved / "project")
    (folder / "scenes").rename(moved / "scenes")
    again = jobfiles.read_job_file(str(moved / "project" / "map.job.json"))
    assert again.source.path == str(moved / "scenes" / "scène 1.tif")
    assert again.output == str(moved / "project" / "map.tif")


def test_all_kinds_of_paths_are_carried(folder):
    job = Assess(
        map=RasterSource(str(folder / "project" / "map.tif")),
        output=str(folder / "project" / "report.html"),
        samples=VectorSource(str(folder / "scenes" / "ref.gpkg")),
        field="class",
        training=str(folder / "project"),
        legend=Legend(str(folder / "scenes" / "legend.csv")),
    )
    (folder / "scenes" / "ref.gpkg").write_text("")
    (folder / "scenes" / "legend.csv").write_text("")
    path = jobfiles.write_job_file(job)
    plain = json.loads(Path(path).read_text())["job"]
    assert plain["samples"]["path"] == "../scenes/ref.gpkg"
    assert plain["legend"]["path"] == "../scenes/legend.csv"
    assert plain["training"].startswith("./")
    assert jobfiles.read_job_file(path) == job


@pytest.mark.parametrize(
    "name", ['NETCDF:"a b.nc":band', "/vsicurl/https://x/y.tif", "postgres://db/t", "/no/such.tif"]
)
def test_data_source_names_stay_as_they_are(folder, name):
    job = classify(folder, source=RasterSource(name))
    path = jobfiles.write_job_file(job)
    assert json.loads(Path(path).read_text())["job"]["source"]["path"] == name
    assert jobfiles.read_job_file(path).source.path == name


def test_the_suffix_that_the_writer_added_is_kept(folder):
    job = classify(folder, output=str(folder / "project" / "map"))
    result = ClassifyResult(job.output + ".tif", "", "", 1, 1.0, 255, {}, (), "cpu")
    path = jobfiles.write_job_file(job, result)
    assert path == str(folder / "project" / "map.job.json")
    assert jobfiles.read_job_file(path).output == job.output + ".tif"


def test_the_first_output_that_is_written_names_the_file(folder):
    job = Assess(map=RasterSource("/m.tif"), reference=RasterSource("/r.tif"), matrix=str(folder / "matrix.csv"))
    assert jobfiles.write_job_file(job) == str(folder / "matrix.job.json")


def test_temporary_outputs_and_reports_on_the_screen_get_none(folder):
    job = classify(folder)
    assert jobfiles.write_job_file(job, temporary_folders=(str(folder / "project"),)) == ""
    assert jobfiles.write_job_file(job, temporary_folders=("", str(folder / "proj"))) != ""
    screen = Assess(map=RasterSource("/m.tif"), reference=RasterSource("/r.tif"))
    assert jobfiles.write_job_file(screen) == ""


def test_hand_written_names_are_taken_from_the_files_folder(folder):
    path = folder / "project" / "by hand.job.json"
    job = {"source": {"path": "../scenes/scène 1.tif"}, "model": "model.safetensors", "output": "new.tif"}
    path.write_text(json.dumps({"kind": "classify", "job": job}), encoding="utf-8")
    read = jobfiles.read_job_file(str(path))
    assert read.model == str(folder / "project" / "model.safetensors")
    assert read.output == str(folder / "project" / "new.tif")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ("[]", "is not a job file"),
        ('{"format": "other"}', "is not a job file"),
        ('{"kind": "dance", "job": {}}', "There is no job 'dance'. Valid jobs: selectsamples,"),
        ('{"kind": "classify", "job": {"sauce": 1}}', "classify has no field 'sauce'."),
        ('{"kind": "classify", "job": {}}', "classify lacks the field 'source'"),
    ],
)
def test_a_file_that_is_none(tmp_path, text, sentence):
    path = tmp_path / "x.job.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput) as raised:
        jobfiles.read_job_file(str(path))
    assert sentence in str(raised.value)


# --- outputs ---


def test_outputs_that_can_be_written_pass_and_leave_nothing(folder):
    jobfiles.check_outputs(classify(folder))
    assert sorted(os.listdir(folder / "project")) == ["model.safetensors"]


def test_the_parents_of_a_folder_output_are_created(folder):
    job = ExtractPatches(RasterSource("/s.tif"), VectorSource("/v.gpkg"), "class", str(folder / "new" / "deep" / "set"))
    jobfiles.check_outputs(job)
    assert (folder / "new" / "deep").is_dir()
    assert not (folder / "new" / "deep" / "set").exists()


def test_a_name_is_refused_that_is_too_long_while_it_is_written(folder):
    for stem in ("n" * 206, "ü" * 103):
        jobfiles.check_outputs(classify(folder, output=str(folder / "project" / f"{stem}.tif")))
        with pytest.raises(
            BadInput, match=r"The name of OUTPUT takes 21[12] bytes; while it is written, it may take 210"
        ):
            jobfiles.check_outputs(classify(folder, output=str(folder / "project" / f"{stem}{stem[0]}.tif")))


def wrong(folder):
    project = folder / "project"
    training = {"training": str(project / "t"), "output": str(project / "m.safetensors")}
    patches = (RasterSource("/s.tif"), VectorSource("/v.gpkg"), "class")
    return {
        "missing": (classify(folder, output=str(folder / "none" / "a.tif")), "The folder '{}/none' of OUTPUT does not"),
        "second": (classify(folder, confidence=str(folder / "none" / "a.tif")), "of CONFIDENCE does not exist."),
        "a file": (classify(folder, output=str(project / "model.safetensors" / "a.tif")), "does not exist."),
        "input": (classify(folder, output=str(folder / "scenes" / "scène 1.tif")), "is also an input"),
        "stack": (classify(folder, output=str(folder / "scenes" / ".." / "scenes" / "none.tif")), "is also an input"),
        "same": (classify(folder, confidence=str(project / "map.tif")), "CONFIDENCE and OUTPUT are the same file"),
        "folder": (classify(folder, output=str(project)), "OUTPUT '{}/project' is a folder, not a file."),
        "reverse": (
            ExtractPatches(*patches, output=str(project / "model.safetensors")),
            "OUTPUT '{}/project/model.safetensors' is a file, not a folder.",
        ),
        "report": (TrainClassifier(**training, report=str(project)), "REPORT '{}/project' is a folder, not a file."),
    }


@pytest.mark.parametrize(
    "case", ["missing", "second", "a file", "input", "stack", "same", "folder", "reverse", "report"]
)
def test_outputs_that_cannot_be_written(folder, case):
    job, sentence = wrong(folder)[case]
    with pytest.raises(BadInput) as raised:
        jobfiles.check_outputs(job)
    assert sentence.format(folder) in raised.value.message
    assert raised.value.remedy


def virtual(path, source):
    path.write_text(f'<VRTDataset><SourceFilename relativeToVRT="1">{source}</SourceFilename></VRTDataset>')
    return RasterSource(str(path))


def test_a_file_that_a_virtual_raster_reads_is_not_overwritten(folder):
    scenes = folder / "scenes"
    scene = scenes / "scène 1.tif"
    mosaic = virtual(folder / "mosaic.vrt", f"scenes/{scene.name}")
    outer = virtual(folder / "outer.vrt", "mosaic.vrt")
    (folder / "link.tif").symlink_to(scene)
    for changes in (
        {"source": mosaic, "output": str(scene)},
        {"source": outer, "output": str(scene)},
        {"source": outer, "output": str(folder / "mosaic.vrt")},
        {"source": mosaic, "output": str(scenes / ".." / "scenes" / scene.name)},
        {"source": mosaic, "output": str(folder / "link.tif")},
        {"source": RasterSource("/s.tif", (outer.path,)), "output": str(scene)},
        {"source": RasterSource("/s.tif"), "mask": outer, "output": str(scene)},
    ):
        job = classify(folder, **changes)
        with pytest.raises(BadInput) as raised:
            jobfiles.check_outputs(job)
        virtual_input = next(path for path in jobfiles.input_paths(job) if path.endswith(".vrt"))
        assert raised.value.message == (
            f"OUTPUT '{job.output}' is also an input and would be overwritten: the VRT '{virtual_input}' reads it."
        )
        assert raised.value.remedy == "Choose another name."
    with pytest.raises(BadInput, match=r"^CONFIDENCE '"):
        jobfiles.check_outputs(classify(folder, source=mosaic, confidence=str(scene)))
    # A map beside it may be made anew.
    (scenes / "map.tif").write_text("")
    jobfiles.check_outputs(classify(folder, source=outer, output=str(scenes / "map.tif")))


def test_virtual_rasters_are_looked_through_where_a_file_would_be_replaced(folder, monkeypatch):
    looked = []
    monkeypatch.setattr(jobfiles, "files_read_by", lambda path: looked.append(path) or ())
    job = classify(folder)
    jobfiles.check_outputs(job)
    assert looked == []
    Path(job.output).write_text("")
    jobfiles.check_outputs(job)
    assert looked == jobfiles.input_paths(job)


def test_a_folder_without_write_permission(folder):
    # /proc takes no files even from root, for whom permissions of other folders count for nothing.
    with pytest.raises(BadInput) as raised:
        jobfiles.check_outputs(SelectSamples(RasterSource("/l.tif"), "/proc/points.gpkg"))
    # That there is no such file is what the system says of any file there; the folder exists.
    assert raised.value.message == "The folder '/proc' of OUTPUT cannot be written."
    assert raised.value.remedy == "Choose a folder that you may write to."
    with pytest.raises(BadInput, match="The folder '/proc/sets' of OUTPUT does not exist"):
        jobfiles.check_outputs(SelectSamples(RasterSource("/l.tif"), "/proc/sets/points.gpkg"))


def test_leftovers_are_known_by_the_engines_own_naming(folder):
    project = folder / "project"
    job = classify(folder, confidence=str(project / "conf.tif"))
    ours = [Path(part_name(job.output)), Path(part_name(job.output) + ".aux.xml"), Path(part_name(job.confidence))]
    # The rasters of a map are written as parts of parts, so that they get their names together.
    ours.append(Path(part_name(part_name(job.output))))
    for path in ours:
        path.write_text("")
    others = [project / ".map.part.tif", project / "map.tif", project / ".map2.0123abcd.part.tif"]
    for path in others:
        path.write_text("")
    assert sorted(jobfiles.remove_parts(job)) == sorted(map(str, ours))
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_half_a_dataset_is_removed(folder):
    job = ExtractPatches(RasterSource("/s.tif"), VectorSource("/v.gpkg"), "class", str(folder / "set"))
    part = Path(part_name(job.output))
    part.mkdir()
    (part / "source1.tif").write_text("")
    jobfiles.remove_parts(job)
    assert not part.exists()


@pytest.mark.parametrize(
    ("scene", "name"),
    [
        ("scène 1.tif", "trainclassifier-scène_1"),
        ("S2A.20.1", "trainclassifier-S2A.20.1"),
        ("../a:b\\c", "trainclassifier-a_b_c"),
        ("x" * 300, "trainclassifier-" + "x" * 60),
        ("", "trainclassifier"),
    ],
)
def test_a_training_is_named_after_its_algorithm_and_scene(tmp_path, scene, name):
    (tmp_path / "dataset.json").write_text(json.dumps({"scene": {"label": scene}}), encoding="utf-8")
    assert jobfiles.training_name(TrainClassifier(str(tmp_path), "m.safetensors")) == name


def test_a_training_of_what_cannot_be_read_is_named_too(tmp_path):
    (tmp_path / "p").mkdir()
    assert jobfiles.training_name(TrainClassifier(str(tmp_path / "p"), "m.safetensors")) == "trainclassifier-p"
    source = RasterSource(str(tmp_path / "a.tif"), label="ortho")
    job = TrainSegmenter("m.safetensors", source=source, labels=RasterSource("l.tif"))
    assert jobfiles.training_name(job) == "trainsegmenter-ortho"


def test_models_are_kept_side_by_side(tmp_path):
    (tmp_path / "OUTPUT.safetensors").write_text("weights")
    store = tmp_path / "home" / "models"
    kept = [jobfiles.keep_model(str(tmp_path / "OUTPUT.safetensors"), str(store), "trainclassifier") for _ in range(3)]
    assert all(Path(path).name.startswith("trainclassifier-20") for path in kept)
    assert jobfiles.kept_models(str(store)) == (3, 3 * len("weights"))
    assert len(set(kept)) == 3
    assert sorted(map(str, store.iterdir())) == sorted(kept)
    assert all(Path(path).read_text() == "weights" and path.endswith(".safetensors") for path in kept)
