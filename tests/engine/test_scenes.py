"""Several scenes as one training set: the pool, splits by scene, and scenes that are left out in turn."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from deepscape.engine import cardsources, inference, modelfiles, patchpools, trainingground, trainingsets
from deepscape.engine.assessment import assess
from deepscape.engine.datasets import PatchDataset, write_description
from deepscape.engine.forest import train_random_forest
from deepscape.engine.training import train_classifier
from deepscape.models.cards import read_card
from deepscape.tasks import jobfiles, jobs
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tests.engine import patchsets
from deepscape.tests.engine.test_training import Listener

NAMES = ("ash", "birch", "cedar", "douglas")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four scenes on different ground; douglas has twice as many patches."""
    folder = tmp_path_factory.mktemp("scenes")
    made = {}
    for number, name in enumerate(NAMES):
        image = patchsets.scene(folder / f"{name}.tif", seed=number, dtype="float32")
        points = patchsets.grid_points(folder / f"{name}.gpkg", (4, 60 if name == "douglas" else 32))
        made[name] = patchsets.extract(folder / f"of {name}", image, points)
        moved(made[name], 100_000 * number)
    return made


def changed(folder, **values):
    """Change what the description of a dataset says."""
    write_description(folder, replace(PatchDataset(folder).description, **values))
    return folder


def moved(folder, metres, **values):
    """Move a dataset's scene to the east."""
    scene = PatchDataset(folder).description.scene
    a, b, c, *rest = scene.transform
    return changed(folder, scene=replace(scene, transform=(a, b, c + metres, *rest), **values))


def job(scenes, output="model", kind=jobs.TrainClassifier, **options):
    first, *others = scenes.values()
    settings = {"network": "pixel_network", "epochs": 2} if kind is jobs.TrainClassifier else {"trees": 5}
    return kind(first, str(output), more_datasets=tuple(others), **{**settings, **options})


def plan(scenes, context=None, **options):
    return trainingsets.open_plan(job(scenes, **options), context or Listener())


def scene_names(part):
    return {part.pool.scenes[number] for number in part.pool.scene_of[part.index]}


# --- the pool --------------------------------------------------------------------------------------------------------


def test_patches_come_from_their_dataset_in_the_order_asked_for(scenes):
    pool = patchpools.open_pool(list(scenes.values()), Context())
    singles = [PatchDataset(folder) for folder in scenes.values()]
    assert len(pool) == sum(map(len, singles)) and pool.starts.tolist() == [0, 300, 600, 900, 1470]
    order = np.random.default_rng(0).permutation(len(pool))[:200]
    found = pool.physical(order)
    for number, patch in zip(order, found):
        owner = int(np.searchsorted(pool.starts, number, side="right")) - 1
        alone = singles[owner]
        inside = [number - pool.starts[owner]]
        assert np.array_equal(patch, alone.physical(alone.patches()[inside])[0])
        assert pool.labels[number] == alone.labels[inside[0]]


def test_physical_values_count_whatever_the_data_type(tmp_path, scenes):
    def values(data):
        return (data * 100).round()

    image = patchsets.scene(tmp_path / "whole.tif", seed=0, values=values, dtype="int16")
    points = patchsets.grid_points(tmp_path / "whole.gpkg", (4, 32))
    whole = patchsets.extract(tmp_path / "whole", image, points, scale=0.01, offset=0.0)
    context = Listener()
    pool = patchpools.open_pool([scenes["ash"], whole], context)
    both = pool.physical(np.array([5, 305]))
    np.testing.assert_allclose(both[0], both[1], atol=0.0051)
    assert context.warnings == [
        "The patches of 'whole' were extracted with another SCALE or OFFSET than the training patches: mapping uses "
        "those of 'of ash'."
    ]


def test_statistics_are_those_of_all_patches(scenes, monkeypatch):
    monkeypatch.setattr(patchpools, "CHUNK_BYTES", 30_000)
    part = plan(scenes, validation_share=0).roles.training
    mean, std = cardsources.band_statistics(part, Context())
    singles = [PatchDataset(folder) for folder in scenes.values()]
    whole = np.concatenate([one.physical(one.patches()) for one in singles]).astype(float)
    np.testing.assert_allclose(mean, whole.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, whole.std(axis=(0, 2, 3)), rtol=1e-6)
    band = cardsources.card_source(part, mean, std).bands[0]
    bands = [one.description.sources[0].bands[0] for one in singles]
    centre = np.mean([b.scene_mean for b in bands])
    assert band.scene_mean == pytest.approx(centre)
    squares = [b.scene_std**2 + b.scene_mean**2 for b in bands]
    assert band.scene_std == pytest.approx(np.sqrt(np.mean(squares) - centre**2))


def test_two_datasets_of_one_image_are_one_scene_and_names_that_collide_are_those_of_folders(tmp_path):
    image = patchsets.scene(tmp_path / "a.tif")
    upper = patchsets.extract(tmp_path / "upper", image, patchsets.grid_points(tmp_path / "u.gpkg", (4, 20)))
    lower = patchsets.extract(tmp_path / "lower", image, patchsets.grid_points(tmp_path / "l.gpkg", (40, 60)))
    pool = patchpools.open_pool([upper, lower], Context())
    assert pool.scenes == ("a.tif",) and set(pool.scene_of) == {0} and set(pool.grids) == {0}
    scene = PatchDataset(lower).description.scene
    changed(lower, scene=replace(scene, path="elsewhere/a.tif"))
    assert patchpools.open_pool([upper, lower], Context()).scenes == ("upper", "lower")


def test_polygons_of_two_datasets_are_not_the_same(tmp_path):
    a = patchsets.dataset(tmp_path, "a", rows=(4, 20), groups=lambda r, c: c // 16)
    b = patchsets.dataset(tmp_path, "b", rows=(4, 20), groups=lambda r, c: c // 16)
    pool = patchpools.open_pool([a, b], Context())
    first, second = np.split(pool.groups, 2)
    assert not set(first) & set(second) and len(set(second)) == 6


def test_classes_are_united_and_two_names_of_one_value_are_warned_of(tmp_path, scenes):
    other = patchsets.dataset(tmp_path, "other", rows=(4, 20), classes=(3, 7))
    first, second = PatchDataset(other).description.classes
    changed(other, classes=(first, replace(second, name="wood")))
    context = Listener()
    found = plan({"other": other, "ash": scenes["ash"]}, context)
    assert [(entry.value, entry.name) for entry in found.roles.classes] == [(3, "water"), (7, "wood"), (300, "town")]
    assert (
        "Class 7 is 'wood' in 'other' and 'forest' in 'of ash': they are taken for one class, 'wood'."
        in context.warnings
    )


def renamed(folder, **names):
    classes = PatchDataset(folder).description.classes
    return changed(folder, classes=tuple(replace(e, name=names.get(f"_{e.value}", e.name)) for e in classes))


def test_the_first_dataset_that_has_a_name_for_a_class_names_it(tmp_path, scenes):
    other = renamed(patchsets.dataset(tmp_path, "other", rows=(4, 20)), _3="Class 3", _300="Town")
    context = Listener()
    found = plan({"other": other, "ash": scenes["ash"]}, context)
    assert [entry.name for entry in found.roles.classes] == ["water", "forest", "Town"]
    assert not any("one class" in text for text in context.warnings)


def test_datasets_whose_numbers_are_other_classes_are_refused(tmp_path, scenes):
    other = renamed(patchsets.dataset(tmp_path, "other", rows=(4, 20)), _3="crop", _7="water")
    with pytest.raises(BadInput) as error:
        plan({"ash": scenes["ash"], "other": other})
    assert error.value.message == (
        "The same numbers stand for other classes: 'water' is class 7 in 'other' and class 3 in 'of ash'."
    )
    assert "LEGEND or NOMENCLATURE" in error.value.remedy
    with pytest.raises(BadInput, match="class 3 is 'water' in 'of ash' and 'crop' in 'other'"):
        plan({"ash": scenes["ash"], "other": renamed(other, _3="crop", _7="road", _300="soil")})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"size": 7}, "The patches of 'odd' have 7 pixels on a side, the training patches 5."),
        ({"bands": 2}, "The patches of 'odd' have 2 bands, the training patches 3."),
    ],
)
def test_datasets_that_do_not_fit_are_named(tmp_path, scenes, made, message):
    odd = patchsets.dataset(tmp_path, "odd", rows=(4, 20), **made)
    with pytest.raises(BadInput) as caught:
        plan({"ash": scenes["ash"], "odd": odd})
    assert caught.value.message == message and caught.value.remedy


def test_a_dataset_is_given_once_as_folder_or_as_its_description(scenes):
    alias = f"{scenes['ash']}/dataset.json"
    with pytest.raises(BadInput, match="of ash' is given twice"):
        plan({"ash": scenes["ash"], "again": alias})
    found = plan({"birch": scenes["birch"], "ash": alias})
    assert found.roles.training.pool.scenes == ("birch.tif", "ash.tif")


def test_pixels_of_two_sizes_are_warned_of(tmp_path, scenes):
    coarse = patchsets.dataset(tmp_path, "coarse", rows=(4, 20))
    changed(coarse, scene=replace(PatchDataset(coarse).description.scene, res_m=30.0))
    context = Listener()
    plan({"ash": scenes["ash"], "coarse": coarse}, context)
    assert any("Pixels of 'coarse' measure 30 m, those of 'of ash' 10 m" in text for text in context.warnings)


@pytest.mark.parametrize(
    ("description", "message", "remedy"),
    [
        ({"targets": "dense", "sources": ["one"]}, "holds a class for every pixel", "around sample points"),
        ({"targets": "patch", "sources": ["one", "two"]}, "holds patches of 2 sources", "patches of one image"),
    ],
)
def test_other_kinds_of_datasets_are_refused(monkeypatch, description, message, remedy):
    dense = description["targets"] == "dense"
    other = SimpleNamespace(folder=Path("other"), description=SimpleNamespace(**description), dense=dense)
    monkeypatch.setattr(patchpools, "PatchDataset", lambda path: other)
    with pytest.raises(BadInput) as caught:
        trainingsets.open_plan(jobs.TrainClassifier("other", "model"), Listener())
    assert message in caught.value.message and remedy in caught.value.remedy


# --- splits by scene -------------------------------------------------------------------------------------------------


def test_whole_scenes_validate_and_test(scenes):
    context = Listener()
    found = plan(scenes, context, split_by="scene", test_scenes=("CEDAR.tif",)).roles
    assert scene_names(found.test) == {"cedar.tif"} and len(found.test) == 300
    validating = scene_names(found.validation)
    assert len(validating) == 1 and scene_names(found.training) == {f"{n}.tif" for n in NAMES} - validating - {
        "cedar.tif"
    }
    assert len(found.training) + len(found.validation) + len(found.test) == 1470
    assert "Scenes held out for the test: cedar.tif." in context.lines
    assert f"Scenes that validate: {validating.pop()}." in context.lines


def test_the_share_of_the_scenes_validates(scenes):
    assert len(scene_names(plan(scenes, split_by="scene", validation_share=0.5).roles.validation)) == 2
    assert len(scene_names(plan(scenes, split_by="scene", validation_share=1.0).roles.validation)) == 3
    assert plan(scenes, split_by="scene", validation_share=0).roles.validation is None
    drawn = {
        next(iter(scene_names(plan(scenes, split_by="scene", seed=s).roles.validation))) for s in range(12)
    }  # fmt: skip
    assert len(drawn) > 1


def test_with_two_scenes_blocks_of_both_validate(scenes):
    two = {name: scenes[name] for name in NAMES[:2]}
    found = plan(two, split_by="scene").roles
    assert scene_names(found.validation) == scene_names(found.training) == {"ash.tif", "birch.tif"}
    assert found.shared_pixels == 0


def test_the_only_scene_of_a_class_does_not_validate(tmp_path, scenes):
    own = patchsets.dataset(tmp_path, "own", rows=(4, 20), classes=(300,))
    others = [patchsets.dataset(tmp_path, name, rows=(4, 20), classes=(3, 7)) for name in ("b", "c")]
    for number, folder in enumerate([own, *others]):
        moved(folder, 100_000 * number)
    for seed in range(6):
        found = plan(dict(zip("abc", [own, *others])), split_by="scene", seed=seed).roles
        assert "own.tif" in scene_names(found.training)


def test_each_datasets_own_split_counts_unless_scenes_split(tmp_path, scenes):
    def split(row, _):
        return "train" if row < 12 else "validation" if row < 20 else "test"

    own = moved(patchsets.dataset(tmp_path, "own", rows=(4, 30), splits=split), 900_000)
    both = {"ash": scenes["ash"], "own": own}
    found = plan(both).roles
    assert {name: len(part) for name, part in found.parts.items()} == {"training": 390, "validation": 90, "test": 90}
    assert scene_names(found.validation) == {"own.tif"}
    held = plan(both, test_scenes=("ash.tif",)).roles
    assert scene_names(held.test) == {"ash.tif"} and len(held.training) == 90
    context = Listener()
    by_scene = plan(both, context, split_by="scene", test_scenes=("ash.tif",)).roles
    assert len(by_scene.training) + len(by_scene.validation) <= 270 and scene_names(by_scene.training) == {"own.tif"}
    assert any("'split' values of the patches are not used" in line for line in context.lines)


@pytest.mark.parametrize(
    ("options", "message", "remedy"),
    [
        ({"test_scenes": ("elm",)}, "names 'elm', which is no scene", "ash.tif, birch.tif, cedar.tif, douglas.tif"),
        ({"test_scenes": tuple(f"{name}.tif" for name in NAMES)}, "names every scene", "at least one"),
    ],
)
def test_wrong_scene_names_are_told(scenes, options, message, remedy):
    with pytest.raises(BadInput) as caught:
        plan(scenes, **options)
    assert message in caught.value.message and remedy in caught.value.remedy


@pytest.mark.parametrize("options", [{"split_by": "scene"}, {"cross_validation": "scene"}])
def test_one_scene_cannot_be_split_by_scene(scenes, options):
    with pytest.raises(BadInput, match=r"all patches come from one scene, 'ash\.tif'") as caught:
        plan({"ash": scenes["ash"]}, **options)
    assert "MORE_DATASETS" in caught.value.remedy


def test_two_ways_to_judge_are_refused():
    with pytest.raises(BadInput, match="but TEST is given too"):
        jobs.TrainClassifier("a", "b", cross_validation="scene", test="c")
    with pytest.raises(BadInput, match="TEST and TEST_SCENES are both given"):
        jobs.TrainRandomForest("a", "b", test_scenes=("x",), test="c")
    with pytest.raises(BadInput, match="SPLIT_BY 'tile' is not a valid choice"):
        jobs.TrainRandomForest("a", "b", split_by="tile")


def test_ground_that_two_scenes_share_is_counted(tmp_path, scenes):
    same = patchsets.dataset(tmp_path, "same", rows=(4, 20), seed=9)
    context = Listener()
    found = plan({"ash": scenes["ash"], "same": same}, context, test_scenes=("same.tif",), validation_share=0).roles
    # Patches of 5 pixels around the rows 4 to 19 and the columns 4 to 91.
    assert found.shared_pixels == 20 * 92
    assert any("are shared between training and test patches" in text for text in context.warnings)


# --- leaving each scene out ------------------------------------------------------------------------------------------


def test_every_scene_is_left_out_once(scenes):
    context = Listener()
    found = plan(scenes, context, cross_validation="scene")
    assert [name for name, _ in found.folds] == [f"{name}.tif" for name in NAMES]
    for name, fold in found.folds:
        assert scene_names(fold.test) == {name}
        assert name not in scene_names(fold.training) | scene_names(fold.validation)
    assert found.roles.test is None
    assert scene_names(found.roles.training) == {f"{name}.tif" for name in NAMES}
    by_scene = plan(scenes, cross_validation="scene", split_by="scene")
    for name, fold in by_scene.folds:
        assert len(scene_names(fold.validation)) == 1 and len(scene_names(fold.training)) == 2
        assert name not in scene_names(fold.training) | scene_names(fold.validation)


def test_a_fold_that_cannot_be_trained_names_the_scene(tmp_path, scenes):
    poor = moved(patchsets.dataset(tmp_path, "poor", rows=(4, 20), classes=(7,)), 700_000)
    with pytest.raises(BadInput, match=r"Without the scene 'ash\.tif': Only class 7 'forest' is in the training"):
        plan({"ash": scenes["ash"], "poor": poor}, cross_validation="scene")


def test_cross_validation_reports_all_scenes_and_writes_a_model_of_all(scenes, tmp_path):
    context = Listener()
    report = tmp_path / "report.html"
    asked = job(scenes, tmp_path / "model", cross_validation="scene", epochs=4, network="compact_cnn",
                report=str(report))  # fmt: skip
    result = train_classifier(asked, context)
    assert result.accuracy_set == "test" and result.metrics["samples"] == 1470 and not result.metrics["optimistic"]
    crossed = result.metrics["cross_validation"]
    assert [(row["scene"], row["samples"]) for row in crossed["scenes"]] == [
        ("ash.tif", 300), ("birch.tif", 300), ("cedar.tif", 300), ("douglas.tif", 570),
    ]  # fmt: skip
    kappas = [row["kappa"] for row in crossed["scenes"]]
    assert min(kappas) > 0.9
    assert crossed["mean"]["kappa"] == pytest.approx(np.mean(kappas))
    assert crossed["deviation"]["kappa"] == pytest.approx(np.std(kappas, ddof=1))
    hits = sum(row["overall_accuracy"] * row["samples"] for row in crossed["scenes"])
    assert result.overall_accuracy == pytest.approx(hits / 1470)
    assert any(line.startswith("Scene 'cedar.tif' left out (3 of 4): overall accuracy ") for line in context.lines)
    assert any(line.startswith("Without 'ash.tif': Epoch 1/4") for line in context.lines)
    # The curves are those of the model that is written; the progress covers all five trainings.
    assert [step for step, _ in context.metrics["train/loss"]] == [1, 2, 3, 4]
    assert context.done[-1][:2] == (context.done[-1][1],) * 2 and len({total for _, total, _ in context.done}) == 1
    assert all(a[0] <= b[0] for a, b in zip(context.done, context.done[1:]))
    card = read_card(result.output)
    assert card.settings["cross_validation"] == "scene" and card.metrics["cross_validation"]["scenes"][0]["kappa"]
    facts = card.training["datasets"]["training"]
    assert [entry["name"] for entry in facts["datasets"]] == [f"of {name}" for name in NAMES]
    assert facts["datasets"][1]["hash"] == PatchDataset(scenes["birch"]).content_hash()
    text = report.read_text(encoding="utf-8")
    assert "Scenes left out" in text and "Standard deviation" in text and "douglas.tif" in text and "4 scenes" in text


def test_the_folds_and_the_written_model_are_those_of_single_trainings(scenes, tmp_path):
    crossed = train_classifier(job(scenes, tmp_path / "crossed", cross_validation="scene"), Listener())
    alone = train_classifier(job(scenes, tmp_path / "alone"), Listener())
    a, b = (modelfiles.module_tensors(modelfiles.load_model(run.output).module) for run in (crossed, alone))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    held = train_classifier(job(scenes, tmp_path / "held", test_scenes=("birch.tif",)), Listener())
    fold = crossed.metrics["cross_validation"]["scenes"][1]
    assert (fold["kappa"], fold["best_epoch"]) == (held.kappa, held.best_epoch)
    further = job(scenes, tmp_path / "on", test_scenes=("ash.tif",), initial_model=held.output, epochs=1)
    assert (
        "Where INITIAL_MODEL has learned from a scene that is held out"
        in train_classifier(further, Listener()).warnings[0]
    )


def test_a_forest_leaves_scenes_out_too(scenes, tmp_path):
    context = Listener()
    asked = job(scenes, tmp_path / "f", kind=jobs.TrainRandomForest, cross_validation="scene",
                report=str(tmp_path / "r.html"))  # fmt: skip
    result = train_random_forest(asked, context)
    assert result.accuracy_set == "test" and result.kappa > 0.9 and result.metrics["samples"] == 1470
    assert len(result.metrics["cross_validation"]["scenes"]) == 4
    assert context.done[-1][:2] == (25, 25)
    assert "Scenes left out" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert modelfiles.load_model(result.output).forest.tree_count == 5


def test_the_field_of_several_datasets_is_known_and_left_out(scenes, tmp_path):
    """Three scenes train, one tests: the map of the first is assessed outside its patches, which cover rows 2 to 33."""
    asked = job(scenes, tmp_path / "f", kind=jobs.TrainRandomForest, test_scenes=("douglas.tif",))
    trained = train_random_forest(asked, Listener())
    grounds, unknown = trainingground.read_grounds(read_card(trained.output).training)
    assert [ground.scene.label for ground in grounds] == ["ash.tif", "birch.tif", "cedar.tif"] and unknown == []
    assert [ground.scene.transform[2] for ground in grounds] == [500_000, 600_000, 700_000]
    # Some patches that touch those of validation are in no part.
    counts = read_card(trained.output).training["counts"]
    used = sum(sum(counts[role].values()) for role in ("training", "validation"))
    assert sum(len(ground.boxes) for ground in grounds) == used
    image = str(Path(scenes["ash"]).parent / "ash.tif")
    mapping = jobs.Classify(jobs.RasterSource(image), trained.output, str(tmp_path / "map.tif"))
    inference.classify(mapping, Listener())
    jobfiles.write_job_file(mapping)
    truth = tmp_path / "truth.tif"
    with rasterio.open(image) as file:
        profile = {**file.profile, "count": 1, "dtype": "uint16"}
    with rasterio.open(truth, "w", **profile) as file:
        file.write(np.broadcast_to(np.repeat(np.array([3, 7, 300], np.uint16), 32), (1, 96, 96)))
    assessed = jobs.Assess(
        jobs.RasterSource(mapping.output), reference=jobs.RasterSource(str(truth)), leave_out_training=True
    )
    inside = trainingground.coverage(grounds[0].boxes, (96, 96))
    assert inside[2:34].mean() > 0.5 and not inside[:2].any() and not inside[34:].any()
    result = assess(assessed, Listener())
    assert result.metrics["left_out"] == inside.sum() and result.sample_count == 96 * 96 - inside.sum()
