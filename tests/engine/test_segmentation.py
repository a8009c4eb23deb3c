"""Training a network of one class per pixel: the whole job on a small scene, interruptions, and what is refused."""

import html
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from deepscape.engine import checkpoints, segmentation, segmentationfit, trainingtime
from deepscape.engine.checkpoints import SUFFIX
from deepscape.engine.featurelabels import FeatureLabels
from deepscape.engine.inference import classify
from deepscape.engine.modelfiles import load_model
from deepscape.engine.segmentation import train_segmenter
from deepscape.engine.trainingground import read_grounds
from deepscape.models.cards import read_card
from deepscape.models.pretrained import UnavailableError
from deepscape.models.recipes import PRESETS
from deepscape.models.registry import network_entry
from deepscape.models.smp import SmpNetwork
from deepscape.tasks import jobs
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, JobCancelled
from shapely.geometry import box

from .patchsets import LEGEND, SIDE, TRANSFORM, scene

SIZE = 16


class Listener(Context):
    """Keeps what it is told; cancels, or asks to stop, at the given step of the training."""

    def __init__(self, cancel_at=None, stop_at=None):
        super().__init__()
        self.lines, self.metrics, self.pictures = [], [], []
        self._cancel_at, self._stop_at, self._steps = cancel_at, stop_at, 0

    def log(self, text):
        self.lines.append(text)

    def metric(self, name, value, step):
        self.metrics.append((name, step, value))

    def picture(self, name, png, step, caption=""):
        self.pictures.append((name, png, step))

    def progress(self, done, total, stage="", unit=""):
        if stage == "training":
            self._steps += 1
            if self._steps == self._cancel_at:
                self.cancelled.set()
            if self._steps == self._stop_at:
                self.stopping.set()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return scene(tmp_path_factory.mktemp("scene") / "scène 1.tif")


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.tif"
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 1, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", crs="EPSG:32631", transform=TRANSFORM, **profile) as raster:
        values = np.repeat(np.array([3, 7, 300], np.uint16), SIDE // 3)
        raster.write(np.broadcast_to(values, (1, SIDE, SIDE)))
    return str(path)


def job(output, image, labels=None, **changes):
    settings = {
        "source": jobs.RasterSource(image), "labels": jobs.RasterSource(labels) if labels else None,
        "patch_size": SIZE, "windows": 12,
        "legend": jobs.Legend(layer_classes=LEGEND), "network_arguments": {"width": 4, "depth": 1}, "epochs": 3,
        "batch_size": 4, "learning_rate": 0.01, "device_choice": "cpu",
    }  # fmt: skip
    return jobs.TrainSegmenter(str(output), **{**settings, **changes})


def weights(path):
    return load_model(str(path)).module.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    # The U-Net asks for 32 pixels; a shallower one needs less.
    monkeypatch.setattr(segmentation, "network_entry", lambda *asked: replace(network_entry(*asked), smallest_patch=8))
    monkeypatch.setattr(trainingtime, "_LEAST_S", 0.0)
    # Graphs are made at the first use as well; see test_graphs.py.
    monkeypatch.setattr(segmentation.graphs, "export_graphs", lambda *_: None)


def test_a_scene_is_learned_and_mapped(tmp_path, image, labels):
    context = Listener()
    made = train_segmenter(
        job(
            tmp_path / "modèle",
            image,
            labels,
            epochs=6,
            windows=64,
            network_arguments={"width": 8, "depth": 1},
            report=str(tmp_path / "r.html"),
        ),
        context,
    )
    assert made.output.endswith("modèle.safetensors") and made.accuracy_set == "validation"
    assert made.overall_accuracy > 0.95 and made.shared_pixels == 0 and made.warnings == ()
    card = read_card(made.output)
    assert (card.output, card.context, card.stride, card.binary) == ("pixels", "local", 2, False)
    assert [entry.value for entry in card.classes] == [3, 7, 300] and card.settings["loss"] == "cross_entropy+dice"
    assert [step for name, step, _ in context.metrics if name == "validation/loss"] == [1, 2, 3, 4, 5, 6]
    assert context.pictures and context.pictures[0][1].startswith(b"\x89PNG")
    assert any("epochs take about" in line for line in context.lines)
    page = (tmp_path / "r.html").read_text()
    assert "Windows of the validation part" in page and "pixels" in page
    for title in ("Image", "Reference", "Prediction"):
        assert page.count(f'<figcaption>{title}</figcaption><img alt="{title}" src="data:image/png;base64,') == 4
    assert not (tmp_path / ("modèle.safetensors" + SUFFIX)).exists()
    mapped = classify(jobs.Classify(jobs.RasterSource(image), made.output, str(tmp_path / "map.tif")), Context())
    with rasterio.open(mapped.output) as raster, rasterio.open(labels) as truth:
        assert (raster.read(1) == truth.read(1)).mean() > 0.95


def test_the_same_most_telling_windows_are_shown_each_time(tmp_path, monkeypatch, image, labels):
    asked = []

    def two(part, count, check):
        asked.append(count)
        return [1, 0][:count]

    monkeypatch.setattr(segmentationfit.previews, "telling_windows", two)
    monkeypatch.setattr(segmentationfit, "PREVIEW_S", 0.0)
    context = Listener()
    train_segmenter(job(tmp_path / "m", image, labels), context)
    assert asked == [4]
    assert [name for name, _, _ in context.pictures] == ["example 1", "example 2"] * 3


@pytest.mark.parametrize("patience", [0, 1])
def test_a_training_cancelled_while_it_shows_windows_ends_with_the_same_bits(
    tmp_path, monkeypatch, image, labels, patience
):
    def given(name):
        return job(tmp_path / name, image, labels, epochs=8, patience=patience)

    whole = train_segmenter(given("whole"), Context())
    chosen = segmentationfit.previews.telling_windows
    context = Listener()

    def cancelling(part, count, check):
        context.cancelled.set()
        return chosen(part, count, check)

    with monkeypatch.context() as patched:
        patched.setattr(segmentationfit.previews, "telling_windows", cancelling)
        with pytest.raises(JobCancelled):
            train_segmenter(given("broken"), context)
    context = Listener()
    again = train_segmenter(given("broken"), context)
    assert again.best_epoch == whole.best_epoch and same(weights(whole.output), weights(again.output))
    assert [step for name, step, _ in context.metrics if name == "validation/loss"][:2] == [1, 2]


def test_a_network_that_learned_nothing_is_warned_of(tmp_path, image, labels):
    page = tmp_path / "r.html"
    made = train_segmenter(
        job(tmp_path / "m", image, labels, epochs=1, windows=4, learning_rate=1e-9, report=str(page)), Context()
    )
    assert made.kappa < 0.05
    (text,) = [text for text in made.warnings if "It has learned nothing yet" in text]
    assert text.startswith("On the validation samples the network ") and "Warnings" in page.read_text()
    assert text in html.unescape(page.read_text(encoding="utf-8"))


def test_the_same_job_gives_the_same_weights(tmp_path, image, labels):
    one, two = (
        train_segmenter(job(tmp_path / name, image, labels, resume=False), Context()).output for name in ("one", "two")
    )
    assert same(weights(one), weights(two))
    other = train_segmenter(job(tmp_path / "other", image, labels, seed=1), Context()).output
    assert not same(weights(one), weights(other))


@pytest.mark.parametrize("step", [1, 2, 3, 5, 8])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, image, labels, step):
    whole = train_segmenter(job(tmp_path / "whole", image, labels), Context())
    broken = job(tmp_path / "broken", image, labels)
    with pytest.raises(JobCancelled):
        train_segmenter(broken, Listener(cancel_at=step))
    assert (tmp_path / ("broken.safetensors" + SUFFIX)).is_file() and not (tmp_path / "broken.safetensors").exists()
    context = Listener()
    again = train_segmenter(broken, context)
    assert any("interrupted training continues in epoch" in line for line in context.lines)
    assert same(weights(whole.output), weights(again.output)) and again.best_epoch == whole.best_epoch
    assert again.metrics["matrix"] == whole.metrics["matrix"]
    assert not (tmp_path / ("broken.safetensors" + SUFFIX)).exists()


@pytest.mark.parametrize("recipe", ["course", "notebook"])
def test_every_optimiser_continues_to_the_bit(tmp_path, image, labels, recipe):
    changes = {"recipe": recipe, "augmentation": "full", "learning_rate": None}
    whole = train_segmenter(job(tmp_path / "whole", image, labels, **changes), Context())
    broken = job(tmp_path / "broken", image, labels, **changes)
    with pytest.raises(JobCancelled):
        train_segmenter(broken, Listener(cancel_at=4))
    assert same(weights(whole.output), weights(train_segmenter(broken, Context()).output))


@pytest.mark.parametrize("patience", [0, 10])
def test_where_weights_are_averaged_their_mean_is_judged_and_kept(tmp_path, monkeypatch, image, labels, patience):
    plain, mean, broken = (job(tmp_path / name, image, labels, patience=patience) for name in ("p", "m", "b"))
    contexts = Listener(), Listener()
    without = train_segmenter(plain, contexts[0])
    monkeypatch.setitem(PRESETS, "default", replace(PRESETS["default"], averaging=0.5))
    with_mean = train_segmenter(mean, contexts[1])
    assert read_card(with_mean.output).settings["averaging"] == 0.5
    # The weights that move are the same; what is evaluated and kept is not.
    moving, judged = (
        [[value for name, _, value in context.metrics if name == f"{part}/loss"] for context in contexts]
        for part in ("train", "validation")
    )
    assert len(moving[0]) == len(judged[0]) == 3 and moving[0] == moving[1] and judged[0] != judged[1]
    assert not same(weights(without.output), weights(with_mean.output))
    interrupted(broken, step=5)
    assert same(weights(with_mean.output), weights(train_segmenter(broken, Context()).output))


def interrupted(given, step=4):
    """Cancel a training at a step; return what its last sentence says."""
    with pytest.raises(JobCancelled) as caught:
        train_segmenter(given, Listener(cancel_at=step))
    return str(caught.value)


def states(folder):
    return sorted(path.name for path in folder.glob("*" + SUFFIX))


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (2, "The beginning of the first of 3 epochs is"),
        (4, "1 of 3 epochs is"),
        (8, "2 of 3 epochs are"),
    ],
)
def test_a_cancelled_training_says_what_is_kept(tmp_path, image, labels, step, kept):
    given = job(tmp_path / "m", image, labels)
    assert interrupted(given, step) == f"Cancelled. {kept} kept: run the same job again to continue."
    assert interrupted(replace(given, resume=False)) == "Cancelled."


def test_a_changed_parameter_and_back_again_loses_no_epoch(tmp_path, image, labels):
    whole = train_segmenter(job(tmp_path / "whole", image, labels), Context())
    ours, longer = job(tmp_path / "m", image, labels), job(tmp_path / "m", image, labels, epochs=4)
    interrupted(ours, 8)
    context = Listener(cancel_at=4)
    with pytest.raises(JobCancelled):
        train_segmenter(longer, context)
    assert (
        "An interrupted training of this model (2 of 3 epochs) was of another job (EPOCHS was 3, is 4): this one "
        "begins anew. The other one is kept until a training of this model is complete: run it as it was to continue "
        "it."
    ) in context.lines
    assert states(tmp_path) == ["m.safetensors.2.state", "m.safetensors.state"]
    context = Listener(cancel_at=1)
    with pytest.raises(JobCancelled):
        train_segmenter(ours, context)
    assert "The interrupted training continues in epoch 3." in context.lines
    assert not any("another job" in line for line in context.lines)
    assert "1 of 4 epochs" in interrupted(longer, 1)  # the other one is as it was, too
    assert same(weights(whole.output), weights(train_segmenter(ours, Context()).output))
    assert states(tmp_path) == []


def test_of_interrupted_trainings_two_are_kept_at_most(tmp_path, image, labels):
    for epochs in (3, 4):
        interrupted(job(tmp_path / "m", image, labels, epochs=epochs))
    context = Listener(cancel_at=4)
    with pytest.raises(JobCancelled):
        train_segmenter(job(tmp_path / "m", image, labels, epochs=5), context)
    found = [line for line in context.lines if "another job" in line]
    assert "EPOCHS was 3, is 5): it gives way to this one" in found[0]
    assert "EPOCHS was 4, is 5): this one begins anew" in found[1] and len(found) == 2
    assert states(tmp_path) == ["m.safetensors.2.state", "m.safetensors.state"]
    context = Listener(cancel_at=1)
    with pytest.raises(JobCancelled):
        train_segmenter(job(tmp_path / "m", image, labels, epochs=4), context)
    assert any("continues in epoch 2" in line for line in context.lines)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 5, "recipe": "notebook"}, "RECIPE was default, is notebook, SEED was 0, is 5"),
        ({"network_arguments": {"width": 8, "depth": 1}}, "WIDTH was 4, is 8"),
        ({"learning_rate": None}, "LEARNING_RATE was 0.01, is unset"),
        ({"legend": jobs.Legend()}, "the labels' legend is another"),
        ({}, "'labels.tif' has changed"),
        (None, "torch was 2.0, is "),
    ],
)
def test_what_differs_from_an_interrupted_training_is_named(tmp_path, monkeypatch, image, labels, changes, told):
    copy = tmp_path / "labels.tif"
    copy.write_bytes(Path(labels).read_bytes())
    with monkeypatch.context() as patched:
        if changes is None:
            patched.setattr(checkpoints.torch, "__version__", "2.0")
        interrupted(job(tmp_path / "m", image, str(copy)))
    os.utime(copy, (1, 1)) if changes == {} else None
    context = Listener(cancel_at=1)
    with pytest.raises(JobCancelled):
        train_segmenter(job(tmp_path / "m", image, str(copy), **(changes or {})), context)
    (line,) = [line for line in context.lines if f"was of another job ({told}" in line]
    # What cannot be had back is not kept.
    assert ("gives way" in line) == (not changes) == (states(tmp_path) == ["m.safetensors.state"])


def test_a_damaged_state_is_no_obstacle(tmp_path, image, labels):
    (tmp_path / ("m.safetensors" + SUFFIX)).write_bytes(b"half of a file")
    context = Listener()
    made = train_segmenter(job(tmp_path / "m", image, labels, epochs=1), context)
    assert made.best_epoch == 1 and states(tmp_path) == []
    assert "'m.safetensors.state' is damaged: its training is begun again." in context.lines


# --- pretrained encoders ---------------------------------------------------------------------------------------------


def pretrained_job(output, image, labels, **changes):
    few = {
        "network_arguments": {"encoder": "test_resnet", "pretrained": True}, "patch_size": 32, "windows": 4,
        "batch_size": 2, "epochs": 2,
    }  # fmt: skip
    return job(output, image, labels, network="smp_unet", **{**few, **changes})


@pytest.fixture
def quick(monkeypatch):
    # How far an encoder looks is found out by trying, which takes longer than to train it here.
    monkeypatch.setattr(segmentation, "field_of", lambda *_: SimpleNamespace(context="tile", stride=32))


def offline(*_):
    raise UnavailableError("no network")


def online(network):
    torch.manual_seed(9)
    for parameter in network.network.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return "a/b"


def test_blocks_are_left_out_the_same_after_an_interruption(tmp_path, image, labels, quick):
    def given(name, **arguments):
        arguments = {"encoder": "test_resnet", "pretrained": False, **arguments}
        return pretrained_job(tmp_path / name, image, labels, network_arguments=arguments)

    made = train_segmenter(given("whole"), Context()).output
    whole = weights(made)
    assert read_card(made).arguments["drop_path"] == 0.2
    assert not same(whole, weights(train_segmenter(given("none", drop_path=0.0), Context()).output))
    interrupted(given("broken"), step=3)
    assert same(whole, weights(train_segmenter(given("broken"), Context()).output))


def test_a_model_whose_weights_could_not_be_fetched_says_that_it_was_not_pretrained(
    tmp_path, monkeypatch, quick, image, labels
):
    monkeypatch.setattr(SmpNetwork, "load_pretrained", offline)
    context, page = Context(), tmp_path / "r.html"
    made = train_segmenter(pretrained_job(tmp_path / "m", image, labels, epochs=1, report=str(page)), context)
    sentence = "The encoder's pretrained weights cannot be had (no network): training starts from random weights."
    assert sentence in context.warnings and sentence in made.warnings
    assert read_card(made.output).arguments["pretrained"] is False
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "pretrained False" in text and "pretrained True" not in text and sentence in text
    monkeypatch.setattr(SmpNetwork, "load_pretrained", online)
    made = train_segmenter(pretrained_job(tmp_path / "n", image, labels, epochs=1), Context())
    assert read_card(made.output).arguments["pretrained"] is True and sentence not in made.warnings


def test_a_training_that_continues_fetches_nothing_and_remembers_how_it_began(
    tmp_path, monkeypatch, quick, image, labels
):
    given = pretrained_job(tmp_path / "m", image, labels, find_rate=True)
    monkeypatch.setattr(SmpNetwork, "load_pretrained", online)
    monkeypatch.setattr(segmentation, "search_rate", lambda *_: 0.003)
    whole = train_segmenter(replace(given, output=str(tmp_path / "whole")), Context())
    interrupted(given, 3)
    monkeypatch.setattr(SmpNetwork, "load_pretrained", pytest.fail)
    monkeypatch.setattr(segmentation, "search_rate", pytest.fail)
    context = Context()
    made = train_segmenter(given, context)
    card = read_card(made.output)
    assert card.arguments["pretrained"] is True and not any("random weights" in text for text in context.warnings)
    assert card.settings["learning_rate"] == 0.003
    assert same(weights(whole.output), weights(made.output))


def test_a_training_that_began_without_a_connection_goes_on_as_it_began(tmp_path, monkeypatch, quick, image, labels):
    given = pretrained_job(tmp_path / "m", image, labels)
    monkeypatch.setattr(SmpNetwork, "load_pretrained", offline)
    interrupted(given, 3)
    monkeypatch.setattr(SmpNetwork, "load_pretrained", pytest.fail)
    context = Listener()
    made = train_segmenter(given, context)
    assert any("interrupted training continues in epoch" in line for line in context.lines)
    assert read_card(made.output).arguments["pretrained"] is False
    assert any(text.startswith("The interrupted training that continues began with random") for text in made.warnings)


# --- stopping, and what is refused -----------------------------------------------------------------------------------


def test_stopping_keeps_the_best_so_far(tmp_path, image, labels):
    context = Listener(stop_at=4)
    made = train_segmenter(job(tmp_path / "m", image, labels, epochs=50), context)
    assert made.best_epoch in (1, 2)
    assert any(line.startswith("Stopped by the user: the weights of epoch") for line in context.lines)
    assert read_card(made.output).settings["stopped"] is True


def test_stopping_in_the_first_epoch_finishes_it(tmp_path, image, labels):
    made = train_segmenter(job(tmp_path / "m", image, labels, epochs=50), Listener(stop_at=1))
    assert made.best_epoch == 1


def areas(path, **parts):
    """Write areas: a part's rows, by its name."""
    boxes = [
        box(TRANSFORM.c, TRANSFORM.f - 10 * last, TRANSFORM.c + 10 * SIDE, TRANSFORM.f - 10 * first)
        for first, last in parts.values()
    ]
    geopandas.GeoDataFrame({"split": list(parts)}, geometry=boxes, crs="EPSG:32631").to_file(path)
    return jobs.VectorSource(str(path))


def features(path, *columns):
    """Write squares that cover the given columns, from row 8 on, 16 rows every 24."""
    boxes = [
        box(TRANSFORM.c + 10 * first, TRANSFORM.f - 10 * (row + 16), TRANSFORM.c + 10 * last, TRANSFORM.f - 10 * row)
        for first, last in columns
        for row in range(8, SIDE, 24)
    ]
    geopandas.GeoDataFrame({"name": ["x"] * len(boxes)}, geometry=boxes, crs="EPSG:32631").to_file(path)
    return jobs.VectorSource(str(path))


def test_polygons_against_their_background(tmp_path, image):
    given = job(
        tmp_path / "m", image, label_features=features(tmp_path / "town.gpkg", (64, 96)),
        background=True, areas=areas(tmp_path / "a.gpkg", train=(0, 48), validation=(48, 72), test=(72, 96)), epochs=8,
        legend=jobs.Legend(),
    )  # fmt: skip
    context = Listener()
    made = train_segmenter(given, context)
    card = read_card(made.output)
    assert card.binary and [(entry.value, entry.name) for entry in card.classes] == [(0, "background"), (1, "town")]
    assert made.accuracy_set == "test" and card.threshold is not None and 0.05 <= card.threshold <= 0.95
    assert any("From a probability of" in line for line in context.lines)
    # What crosses a border is in no score: rows 8-24 and 32-48 train, 56-72 validate, 80-96 test.
    assert card.training["counts"]["test"] == {"0": 24 * SIDE - 16 * 32, "1": 16 * 32}
    # The field is what trains and validates, not what tests.
    (ground,), unknown = read_grounds(card.training)
    assert ground.boxes.tolist() == [[0, 0, 48, SIDE], [48, 0, 72, SIDE]] and unknown == []
    assert (ground.scene.label, ground.scene.transform) == ("scène 1.tif", tuple(TRANSFORM[:6]))
    # What a model that is trained further has seen before stays in its field.
    on = replace(
        given, output=str(tmp_path / "on"), initial_model=made.output, epochs=1,
        areas=areas(tmp_path / "b.gpkg", train=(40, 72), validation=(72, 96)),
    )  # fmt: skip
    grounds, unknown = read_grounds(read_card(train_segmenter(on, Context()).output).training)
    assert [ground.boxes.tolist() for ground in grounds] == [
        [[40, 0, 72, SIDE], [72, 0, 96, SIDE]], [[0, 0, 48, SIDE], [48, 0, 72, SIDE]],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [({}, "epoch and the threshold"), ({"patience": 0}, "threshold"), ({"patience": 0, "threshold": 0.5}, "")],
)
def test_validation_that_chose_something_is_called_optimistic(tmp_path, image, changes, chosen):
    given = job(
        tmp_path / "m", image, label_features=features(tmp_path / "town.gpkg", (64, 96)), background=True, epochs=1,
        areas=areas(tmp_path / "a.gpkg", train=(0, 48), validation=(48, 96)), legend=jobs.Legend(), **changes,
    )  # fmt: skip
    context = Listener()
    made = train_segmenter(given, context)
    assert made.accuracy_set == "validation" and made.metrics["optimistic"] == bool(chosen)
    wanted = f"which also chose the {chosen} (chosen on" if chosen else "which were used for nothing else."
    assert sum(f"Accuracy on the validation samples, {wanted}" in line for line in context.lines) == 1


def test_one_class_only_is_refused(tmp_path, image):
    given = job(tmp_path / "m", image, label_features=features(tmp_path / "town.gpkg", (64, 96)))
    with pytest.raises(BadInput) as caught:
        train_segmenter(given, Context())
    assert "Only class 1" in caught.value.message and "BACKGROUND" in caught.value.remedy
    assert list(tmp_path.glob("m*")) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 18, "network_arguments": {"width": 2, "depth": 2}}, "PATCH_SIZE is 18 pixels; U-Net takes"),
        ({"patch_size": 128}, "PATCH_SIZE is 128 pixels, larger than"),
        ({"target": "binary"}, "TARGET is binary, but there are 3 classes"),
        ({"threshold": 0.5}, "THRESHOLD is 0.5, but the model is not binary."),
        ({"ignore_class": 9}, "IGNORE_CLASS is 9, which is no class"),
        ({"learning_rate": 1e18, "recipe": "notebook"}, "The training loss is no longer a number"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, image, labels, changes, message):
    with pytest.raises(BadInput) as caught:
        train_segmenter(job(tmp_path / "m", image, labels, **changes), Context())
    assert message in caught.value.message and caught.value.remedy
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "message", "remedy"),
    [
        ({"patch_size": 50, "network_arguments": {"width": 2, "depth": 4}}, "PATCH_SIZE is 50 pixels", "48 or 64"),
        ({"network": "smp_unet", "network_arguments": {}, "patch_size": 50}, "PATCH_SIZE is 50 pixels", "32 or 64"),
        ({"network": "smp_unet", "network_arguments": {"encoder": "resnet999"}}, "'resnet999'", "resnet18"),
        ({"initial_model": "none.safetensors"}, "none.safetensors", ""),
    ],
)
def test_what_needs_no_labels_is_said_before_they_are_read(
    tmp_path, monkeypatch, image, labels, changes, message, remedy
):
    monkeypatch.setattr(segmentation, "open_dense_roles", lambda *_: pytest.fail("the labels were opened"))
    with pytest.raises(BadInput) as caught:
        train_segmenter(job(tmp_path / "m", image, labels, **changes), Context())
    assert message in caught.value.message and remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area_field": "part"}, "The layer 'a.gpkg' of AREAS has no field 'part'."),
        ({"background": True, "target": "classes", "threshold": 0.5}, "THRESHOLD is 0.5, but the model is not binary."),
    ],
)
def test_what_needs_no_pixel_is_said_before_they_are_read(tmp_path, monkeypatch, image, changes, message):
    monkeypatch.setattr(FeatureLabels, "read", lambda *_: pytest.fail("a pixel was read"))
    given = job(
        tmp_path / "m", image, label_features=features(tmp_path / "town.gpkg", (64, 96)),
        areas=areas(tmp_path / "a.gpkg", train=(0, 48), validation=(48, 96)), legend=jobs.Legend(), **changes,
    )  # fmt: skip
    with pytest.raises(BadInput) as caught:
        train_segmenter(given, Context())
    assert caught.value.message == message
    assert "area_field" not in changes or ("AREA_FIELD" in caught.value.remedy and "split" in caught.value.remedy)


def test_one_epoch_is_one(tmp_path, image, labels):
    context = Listener()
    train_segmenter(job(tmp_path / "m", image, labels, epochs=1), context)
    assert any(line.startswith("1 epoch takes about") for line in context.lines)


def test_an_ignored_class_is_neither_learned_nor_counted(tmp_path, image, labels):
    made = train_segmenter(job(tmp_path / "m", image, labels, ignore_class=7, target="classes"), Context())
    card = read_card(made.output)
    assert [entry.value for entry in card.classes] == [3, 300] and not card.binary
    assert made.metrics["values"] == [3, 300]


def test_the_learning_rate_is_found(tmp_path, image, labels):
    context = Listener()
    made = train_segmenter(job(tmp_path / "m", image, labels, find_rate=True, epochs=1), context)
    rate = read_card(made.output).settings["learning_rate"]
    assert any("The range test finds a learning rate of" in line for line in context.lines)
    assert 1e-6 <= rate <= 1 and rate != 0.01


def test_training_goes_on_from_a_model(tmp_path, monkeypatch, image, labels):
    first = train_segmenter(job(tmp_path / "first", image, labels), Context())
    loaded = []
    monkeypatch.setattr(segmentation, "load_model", lambda path: loaded.append(path) or load_model(path))
    made = train_segmenter(
        job(tmp_path / "m", image, labels, initial_model=first.output, epochs=1, learning_rate=1e-6), Context()
    )
    assert made.overall_accuracy == pytest.approx(first.overall_accuracy, abs=0.05) and loaded == [first.output]


def test_no_thread_is_left(tmp_path, image, labels):
    before = threading.active_count()
    with pytest.raises(JobCancelled):
        train_segmenter(job(tmp_path / "m", image, labels), Listener(cancel_at=2))
    assert threading.active_count() <= before


def test_weights_of_classes_have_a_mean_of_one_over_the_pixels():
    pixels = np.array([900, 100, 0])
    found = segmentationfit.class_weights(pixels, "balanced")
    assert float((found * torch.from_numpy(pixels)).sum()) == pytest.approx(1000)
    assert found[1] / found[0] == pytest.approx(9)
    assert torch.equal(segmentationfit.class_weights(pixels, "none"), torch.ones(3))


def test_a_class_of_few_pixels_is_not_all_that_counts():
    found = segmentationfit.class_weights(np.array([1_000_000, 1_000_000, 10]), "balanced")
    assert found[2] / found[0] == pytest.approx(10 * 3 / 2, rel=1e-3)
