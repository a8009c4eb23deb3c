"""Training: roles, standardisation, the loop, its choice of the epoch, repeatability, bad input."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from deepscape.engine import cardsources, modelfiles, patchpools, training, trainingbatches, trainingsets
from deepscape.engine.datasets import PatchDataset, write_description
from deepscape.engine.training import train_classifier
from deepscape.engine.trainingbatches import (
    Recipe,
    StandardisedPatches,
    augment,
    batches,
    choose_recipe,
    symmetry,
)
from deepscape.models.cards import read_card
from deepscape.tasks import jobs
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, JobCancelled
from deepscape.tests.engine import patchsets


class Listener(Context):
    """Keeps what it is told; one thread, so that results repeat."""

    def __init__(self):
        super().__init__()
        self.lines, self.metrics, self.done = [], {}, []

    def log(self, text):
        self.lines.append(text)

    def metric(self, name, value, step):
        self.metrics.setdefault(name, []).append((step, value))

    def progress(self, done, total, stage="", unit=""):
        self.done.append((done, total, unit))

    def threads(self):
        return 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def train_set(folder):
    return patchsets.dataset(folder, "train", rows=(4, 40))


@pytest.fixture(scope="module")
def held_out(folder):
    return patchsets.dataset(folder, "test", rows=(60, 90), step=5)


def job(train, output, **options):
    settings = {"validation_share": 0.0, "network": "pixel_network", "epochs": 3, **options}
    return jobs.TrainClassifier(train, str(output), **settings)


# --- the whole job ---------------------------------------------------------------------------------------------------


def test_the_test_set_is_reported_and_the_card_says_everything(train_set, held_out, tmp_path):
    context = Listener()
    before = torch.get_num_threads(), torch.get_rng_state()
    report = tmp_path / "report.html"
    result = train_classifier(
        job(train_set, tmp_path / "model", test=held_out, epochs=8, network="compact_cnn", report=str(report)), context
    )
    assert torch.get_num_threads() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    assert result.output == str(tmp_path / "model.safetensors")
    assert result.accuracy_set == "test" and result.kappa > 0.95 and result.best_epoch == 8
    assert result.metrics["values"] == [3, 7, 300] and result.metrics["samples"] == len(PatchDataset(held_out))
    assert result.shared_pixels == 0
    assert "0 pixels are shared between training and test patches." in context.lines
    card = read_card(result.output)
    assert card.parameter_count == result.parameter_count > 0
    assert [band.name for band in card.sources[0].bands] == ["B1", "B2", "B3"]
    assert card.sources[0].patch_size == 5 and card.res_m == pytest.approx(10)
    assert card.training["datasets"]["training"]["hash"] == PatchDataset(train_set).content_hash()
    assert card.training["counts"]["training"] == {"3": 120, "7": 120, "300": 120}
    assert card.settings["seed"] == 0 and card.settings["learning_rate"] == 1e-3 and card.settings["batch_size"] == 64
    assert card.metrics["kappa"] == result.kappa and card.versions["torch"] == torch.__version__
    assert card.created and card.metrics["accuracy_set"] == "test"
    assert all(band.scale is None and band.offset is None for band in card.sources[0].bands)
    text = report.read_text(encoding="utf-8")
    assert "Confusion matrix" in text and "neither the training nor the choice" in text and "water" in text
    assert json.loads(json.dumps(result.metrics))["accuracy_set"] == "test"
    loaded = modelfiles.load_model(result.output)
    assert loaded.module(torch.zeros(2, 3, 5, 5)).shape == (2, 3)


def test_every_epoch_reports_its_numbers_and_the_progress_of_its_patches(train_set, held_out, tmp_path):
    context = Listener()
    train_classifier(job(train_set, tmp_path / "m", validation=held_out, epochs=2, patience=0), context)
    for role in ("train", "validation"):
        for name in ("loss", "overall_accuracy", "kappa", "macro_f1", "mean_iou"):
            assert [step for step, _ in context.metrics[f"{role}/{name}"]] == [1, 2]
    assert any(line.startswith("Epoch 2/2: loss ") and "validation kappa" in line for line in context.lines)
    assert context.done[-1] == (2 * 360, 2 * 360, "patches")


def test_without_test_and_validation_nothing_is_claimed(train_set, tmp_path):
    context = Listener()
    result = train_classifier(job(train_set, tmp_path / "m", epochs=2), context)
    assert (result.accuracy_set, result.overall_accuracy, result.kappa) == ("none", None, None)
    assert result.best_epoch == 2
    assert any("no validation set" in line for line in context.lines)
    assert any("unknown" in line for line in context.lines)


def test_validation_that_chose_the_epoch_is_called_optimistic(train_set, held_out, tmp_path):
    context = Listener()
    result = train_classifier(job(train_set, tmp_path / "m", validation=held_out), context)
    assert result.accuracy_set == "validation" and result.metrics["optimistic"]
    assert any("chosen on these samples: optimistic" in line for line in context.lines)
    context = Listener()
    result = train_classifier(job(train_set, tmp_path / "m", validation=held_out, patience=0), context)
    assert result.accuracy_set == "validation" and not result.metrics["optimistic"] and result.best_epoch == 3
    assert not any("optimistic" in line for line in context.lines)


@pytest.mark.parametrize("network", ["compact_cnn", "pixel_network"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train_set, tmp_path, network):
    def weights(seed, name):
        train_classifier(job(train_set, tmp_path / name, network=network, epochs=2, seed=seed), Listener())
        return modelfiles.module_tensors(modelfiles.load_model(str(tmp_path / f"{name}.safetensors")).module)

    first, again, other = weights(5, "a"), weights(5, "b"), weights(6, "c")
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_patches_read_from_the_file_give_the_weights_of_patches_in_memory(train_set, tmp_path, monkeypatch):
    train_classifier(job(train_set, tmp_path / "a", epochs=2), Listener())
    monkeypatch.setattr(trainingbatches, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(patchpools, "CHUNK_BYTES", 10_000)
    train_classifier(job(train_set, tmp_path / "b", epochs=2), Listener())
    a, b = (modelfiles.load_model(str(tmp_path / f"{n}.safetensors")).module.state_dict() for n in "ab")
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_the_initial_model_is_trained_further_with_its_standardisation(train_set, tmp_path):
    image = patchsets.scene(tmp_path / "other.tif", seed=4, values=lambda data: data + 50)
    points = patchsets.grid_points(tmp_path / "other.gpkg", (4, 40))
    other = patchsets.extract(tmp_path / "other", image, points)
    first = train_classifier(job(train_set, tmp_path / "a", epochs=1), Listener())
    more = train_classifier(job(other, tmp_path / "b", epochs=1, initial_model=first.output), Listener())
    a, b = read_card(first.output).sources[0].bands, read_card(more.output).sources[0].bands
    assert [(band.mean, band.std) for band in a] == [(band.mean, band.std) for band in b]
    assert b[0].scene_mean == pytest.approx(a[0].scene_mean + 50, abs=0.5)
    with pytest.raises(BadInput, match="network of INITIAL_MODEL is pixel_network, that of this training compact_cnn"):
        train_classifier(job(train_set, tmp_path / "c", initial_model=first.output, network="compact_cnn"), Listener())


def test_an_initial_model_of_other_classes_is_told_or_refused(train_set, tmp_path):
    other = patchsets.dataset(tmp_path, "other", rows=(4, 20))
    description = PatchDataset(other).description

    def trained_further(*names):
        table = tuple(replace(entry, name=name) for entry, name in zip(description.classes, names))
        write_description(other, replace(description, classes=table))
        listener = Listener()
        train_classifier(job(other, tmp_path / "b", epochs=1, initial_model=first.output), listener)
        return listener.warnings

    first = train_classifier(job(train_set, tmp_path / "a", epochs=1), Listener())
    told = "Class 3 is 'soil' in this training and 'water' in 'a.safetensors': they are taken for one class, 'soil'."
    assert told in trained_further("soil", "forest", "town")
    with pytest.raises(BadInput, match=r"'forest' is class 3 in this training and class 7 in 'a\.safetensors'"):
        trained_further("forest", "soil", "town")
    with pytest.raises(BadInput, match=r"class 3 is 'water' in 'a\.safetensors' and 'soil' in this training"):
        trained_further("soil", "rock", "road")


def test_a_cancel_ends_it_and_leaves_no_file(train_set, tmp_path):
    class Cancelling(Listener):
        def progress(self, done, total, stage="", unit=""):
            self.cancelled.set()

    with pytest.raises(JobCancelled):
        train_classifier(job(train_set, tmp_path / "m", epochs=50), Cancelling())
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_training_names_the_learning_rate(train_set, tmp_path, monkeypatch):
    monkeypatch.setattr(training.functional, "cross_entropy", lambda x, y, **_: x[:, 0] * math.nan)
    with pytest.raises(BadInput, match=r"epoch 1 \(learning rate 0\.5\)"):
        train_classifier(job(train_set, tmp_path / "m", learning_rate=0.5), Listener())


def test_cuda_without_a_gpu_falls_back_to_the_cpu_with_a_warning(train_set, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = train_classifier(job(train_set, tmp_path / "m", epochs=1, device_choice="cuda"), Listener())
    assert any("no usable GPU" in text for text in result.warnings)


# --- which epoch is kept ---------------------------------------------------------------------------------------------


class Scripted(training._Run):
    """A run whose epochs have numbers given beforehand; its weights are the number of the epoch."""

    values = ()

    def _train_epoch(self, number):
        with torch.no_grad():
            self.network.layers[0].weight.fill_(number)
        self.number = number
        return 1.0, training.scores(np.eye(3, dtype=int))

    def _evaluate(self, role):
        loss, right = self.values[min(self.number, len(self.values)) - 1]
        return loss, training.scores(np.array([[right, 10 - right, 0], [0, 10, 0], [0, 0, 10]]))


@pytest.mark.parametrize(
    ("monitor", "values", "kept"),
    [
        ("loss", [(0.5, 9), (0.2, 5), (0.3, 10)], 2),  # the lowest loss, not the highest kappa
        ("kappa", [(0.5, 9), (0.2, 5), (0.6, 10)], 3),
        ("kappa", [(0.5, 9), (0.2, 9), (0.3, 9)], 2),  # a tie goes to the lower loss
        ("macro_f1", [(0.2, 9), (0.2, 9), (0.3, 9)], 2),  # and then to the later epoch
        ("loss", [(0.2, 9), (0.2, 5), (0.3, 9)], 2),
    ],
)
def test_the_best_epoch_is_kept(train_set, held_out, tmp_path, monkeypatch, monitor, values, kept):
    monkeypatch.setattr(Scripted, "values", values)
    monkeypatch.setattr(training, "_Run", Scripted)
    wanted = job(train_set, tmp_path / "m", validation=held_out, epochs=3, monitor=monitor)
    result = train_classifier(wanted, Listener())
    assert result.best_epoch == kept
    assert modelfiles.load_model(result.output).module.layers[0].weight.unique().item() == kept


@pytest.mark.parametrize(
    ("patience", "when", "epochs"),
    [(9, 1, 1), (9, 3.5, 3), (0, 3.5, 4)],  # without a validated best, the epoch that runs is finished
)
def test_stop_and_keep_the_best(train_set, held_out, tmp_path, patience, when, epochs):
    class Impatient(Listener):
        def progress(self, done, total, stage="", unit=""):
            super().progress(done, total, stage, unit)
            if stage == "training" and done >= when * total / 20:
                self.stopping.set()

    context = Impatient()
    options = {"validation": held_out, "patience": patience, "network": "pixel_network", "batch_size": 8}
    result = train_classifier(job(train_set, tmp_path / "m", epochs=20, **options), context)
    assert len(context.metrics["train/loss"]) == epochs
    assert f"Stopped by the user: the weights of epoch {result.best_epoch} are kept." in context.lines
    assert not context.stopping.is_set()
    kept = dict(context.metrics["validation/kappa"])[result.best_epoch]
    assert patience or result.best_epoch == epochs
    assert result.kappa == pytest.approx(kept) and result.accuracy_set == "validation"


def test_patience_ends_training_and_patience_0_runs_every_epoch(train_set, held_out, tmp_path, monkeypatch):
    monkeypatch.setattr(Scripted, "values", [(0.1, 10), (0.5, 5)])
    monkeypatch.setattr(training, "_Run", Scripted)
    context = Listener()
    wanted = job(train_set, tmp_path / "m", validation=held_out, epochs=20, patience=4)
    result = train_classifier(wanted, context)
    # The learning rate rises for 6 epochs; the patience counts from there.
    assert result.best_epoch == 1 and len(context.metrics["train/loss"]) == 10
    # All that is done, then: no time is left that would be told after the end.
    assert context.done[-1][0] == context.done[-1][1]
    context = Listener()
    result = train_classifier(job(train_set, tmp_path / "m", validation=held_out, epochs=20, patience=0), context)
    assert result.best_epoch == 20 and len(context.metrics["train/loss"]) == 20


# --- roles -----------------------------------------------------------------------------------------------------------


def roles(train, validation="", test="", share=0.2, context=None):
    asked = jobs.TrainClassifier(train, "model", validation=validation, test=test, validation_share=share)
    return trainingsets.open_plan(asked, context or Listener()).roles


def test_the_datasets_own_split_is_honoured(tmp_path):
    def split(row, _):
        return "train" if row < 20 else "validation" if row < 30 else "test" if row < 38 else ""

    found = roles(patchsets.dataset(tmp_path, rows=(4, 44), splits=split))
    assert {name: len(part) for name, part in found.parts.items()} == {"training": 180, "validation": 90, "test": 90}
    assert any("60 patches without a 'split' value" in note for note in found.notes)


def test_blocks_are_held_back_and_no_pixel_is_shared(tmp_path):
    context = Listener()
    found = roles(patchsets.dataset(tmp_path, rows=(4, 90)), context=context)
    share = len(found.validation) / 870
    assert 0.1 < share < 0.3
    assert set(found.validation.labels) == {0, 1, 2}
    assert "0 pixels are shared between training and validation patches." in context.lines
    assert any("spatial blocks" in note and "left out" in note for note in found.notes)


def test_whole_polygons_are_held_back(tmp_path):
    def polygon(row, col):
        return (row // 12) * 10 + col // (patchsets.SIDE // 3)

    found = roles(patchsets.dataset(tmp_path, rows=(4, 90), groups=polygon))
    groups = found.training.pool.groups
    assert not set(groups[found.training.index]) & set(groups[found.validation.index])
    assert set(found.validation.labels) == {0, 1, 2}
    assert any("whole polygons" in note for note in found.notes)


def test_a_class_with_one_polygon_trains(tmp_path):
    def polygon(row, col):
        return 0 if col < patchsets.SIDE // 3 else (row // 12) * 10 + col // (patchsets.SIDE // 3)

    context = Listener()
    found = roles(patchsets.dataset(tmp_path, rows=(4, 90), groups=polygon), context=context)
    assert (found.training.labels == 0).sum() > 0 and not (found.validation.labels == 0).any()
    assert any("validation samples hold no patch of class 3 'water'" in text for text in context.warnings)


def test_a_class_of_two_polygons_that_learns_from_one_is_warned_of(tmp_path):
    def polygon(row, col):
        third = col // (patchsets.SIDE // 3)
        # Water has two polygons, of which the smaller one holds 40 %; the others have many.
        return int(row < 38) if third == 0 else (row // 12) * 10 + third + 1

    context = Listener()
    found = roles(patchsets.dataset(tmp_path, rows=(4, 90), groups=polygon), context=context)
    assert (
        "Class 3 'water' learns from 1 polygon only (of 2), as whole polygons validate. Add polygons, or give "
        "VALIDATION_SHARE 0 to learn from all." in context.warnings
    )
    note = next(note for note in found.notes if "whole polygons" in note)
    assert (
        note.endswith("Asked for are 20%; as polygons and blocks stay whole, they are 41% of class 3 'water'.")
        and note in context.lines
    )
    context = Listener()
    assert roles(patchsets.dataset(tmp_path, "again", rows=(4, 90), groups=polygon), share=0, context=context)
    assert not context.warnings


def test_shared_pixels_are_counted_and_the_accuracy_is_not_called_unseen(tmp_path, train_set):
    near = patchsets.dataset(tmp_path, "near", rows=(36, 60))
    context, report = Listener(), tmp_path / "r.html"
    result = train_classifier(job(train_set, tmp_path / "m", test=near, report=str(report)), context)
    assert result.shared_pixels > 0
    assert any(f"{result.shared_pixels} pixels are shared" in text for text in context.warnings)
    sentence = (
        f"Accuracy on the test samples, which share {result.shared_pixels} pixels with the training patches: "
        "optimistic."
    )
    assert sentence in context.lines and sentence == read_card(result.output).metrics["sentence"]
    assert sentence in report.read_text() and "has seen" not in report.read_text() + " ".join(context.lines)


def test_pixels_that_validation_shares_with_the_test_are_counted_where_it_chooses_the_epoch(
    tmp_path, train_set, held_out
):
    near = patchsets.dataset(tmp_path, "near", rows=(56, 64))
    context, report = Listener(), tmp_path / "r.html"
    judged = {"validation": near, "test": held_out}
    result = train_classifier(job(train_set, tmp_path / "m", **judged, report=str(report)), context)
    # Validation's patches hold rows 54 to 64, those of the test 58 to 62, 63 to 67 ...: 7 rows of 18 patches of 5.
    pixels, tests = 7 * 90, len(PatchDataset(held_out))
    assert result.shared_pixels == 0 and "0 pixels are shared between training and test patches." in context.lines
    line = f"{pixels} pixels are shared between validation and test patches."
    assert line in context.lines
    [warning] = [text for text in context.warnings if "shared" in text]
    assert warning == (
        f"{pixels} pixels are shared between validation and test patches (36 of {tests} test patches): the "
        "accuracy is optimistic, for validation chooses the epoch. Use smaller patches, or split the samples again "
        "with a GUARD."
    )
    sentence = (
        f"Accuracy on the test samples, which share {pixels} pixels with the validation patches, which chose the "
        "epoch: optimistic."
    )
    assert sentence in context.lines and sentence == read_card(result.output).metrics["sentence"]
    assert f"0 between training and test, {pixels} between validation and test" in report.read_text()
    # Where it chooses nothing, it does no harm.
    context = Listener()
    train_classifier(job(train_set, tmp_path / "n", **judged, patience=0), context)
    assert line in context.lines and not any("shared" in text for text in context.warnings)
    assert any("which neither the training nor the choice of the epoch has seen" in text for text in context.lines)


def test_a_folder_of_two_roles_is_refused(tmp_path, train_set, held_out):
    for role in ("validation", "test"):
        with pytest.raises(BadInput, match=f"is given as TRAINING and as {role.upper()}") as caught:
            roles(train_set, **{role: train_set + "/"})
        assert caught.value.remedy.startswith(f"Give patches of other places as {role.upper()}, or leave it empty")
    several = jobs.TrainClassifier(train_set, "model", test=held_out, more_datasets=(held_out + "/dataset.json",))
    with pytest.raises(BadInput, match="is given as MORE_DATASETS and as TEST"):
        trainingsets.open_plan(several, Listener())
    with pytest.raises(BadInput, match=r"given as VALIDATION and as TEST, and none .* 'split' value validation"):
        roles(train_set, validation=held_out, test=held_out)
    parts = patchsets.dataset(
        tmp_path, rows=(60, 90), splits=lambda row, _: "validation" if row < 70 else "test" if row > 75 else ""
    )
    found = roles(train_set, validation=parts, test=parts)
    assert not set(found.validation.index) & set(found.test.index)


def test_one_class_only_is_named(tmp_path):
    only = patchsets.dataset(tmp_path, classes=(7,))
    with pytest.raises(BadInput) as caught:
        roles(only)
    assert caught.value.message == "Only class 7 'forest' is in the training samples."
    assert "at least one other class" in caught.value.remedy


def test_a_class_that_only_the_test_set_holds_is_warned_of(tmp_path, held_out):
    context = Listener()
    found = roles(patchsets.dataset(tmp_path, rows=(4, 40), classes=(3, 300)), test=held_out, context=context)
    assert [entry.value for entry in found.classes] == [3, 7, 300]
    assert "Class 7 'forest' has no training sample: it will not be mapped." in context.warnings


def test_datasets_that_do_not_fit_are_named(tmp_path, train_set):
    bigger = patchsets.dataset(tmp_path, "bigger", size=7)
    with pytest.raises(BadInput, match="test patches have 7 pixels on a side, the training patches 5"):
        roles(train_set, test=bigger)
    fewer = patchsets.dataset(tmp_path, "fewer", bands=2)
    with pytest.raises(BadInput, match="validation patches have 2 bands, the training patches 3"):
        roles(train_set, validation=fewer)


def test_patches_too_small_for_the_network_are_named(train_set, tmp_path):
    with pytest.raises(BadInput, match="at least 16 pixels, these have 5") as caught:
        train_classifier(job(train_set, tmp_path / "m", network="simple_cnn"), Listener())
    assert caught.value.remedy


# --- standardisation -------------------------------------------------------------------------------------------------


def test_band_statistics_are_those_of_the_valid_physical_values(tmp_path, monkeypatch):
    def values(data):
        data = (data + 20_000).round()
        data[1, ::7, ::5] = -1
        data[2] = 5
        return data

    image = patchsets.scene(tmp_path / "s.tif", values=values, dtype="int32", nodata=-1)
    points = patchsets.grid_points(tmp_path / "p.gpkg", (4, 44))
    made = patchsets.extract(tmp_path / "p", image, points, max_nodata=1.0, scale=0.01, offset=-3.0)
    context = Listener()
    part = roles(made, share=0).training
    monkeypatch.setattr(patchpools, "CHUNK_BYTES", 20_000)
    mean, std = cardsources.band_statistics(part, context)
    whole = part.pool.physical(np.arange(len(part.pool))).astype(np.float64)
    np.testing.assert_allclose(mean, np.nanmean(whole, axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std[:2], np.nanstd(whole, axis=(0, 2, 3))[:2], rtol=1e-6)
    assert std[2] == 1.0
    assert context.warnings == ["'B3' is constant in the training patches: the model learns nothing from it."]
    band = cardsources.card_source(part, mean, std).bands[1]
    assert (band.scale, band.offset, band.nodata) == (0.01, -3.0, -1)


def test_no_data_becomes_zero_after_standardisation(tmp_path):
    def values(data):
        data[0, ::4] = np.nan
        return data

    image = patchsets.scene(tmp_path / "s.tif", values=values)
    made = patchsets.extract(tmp_path / "p", image, patchsets.grid_points(tmp_path / "p.gpkg", (4, 44)), max_nodata=1.0)
    result = train_classifier(job(made, tmp_path / "m", epochs=1), Listener())
    card = read_card(result.output)
    part = roles(made, share=0).training
    data = StandardisedPatches(part, card, torch.device("cpu"), Listener())
    batch = data.batch(torch.arange(len(data)))
    missing = torch.from_numpy(np.isnan(part.physical(np.arange(len(part)))))
    assert missing.any() and (batch[missing] == 0).all()
    assert batch[:, 1].mean().item() == pytest.approx(0, abs=1e-3)
    assert batch[:, 1].std().item() == pytest.approx(1, abs=1e-2)


# --- batches and augmentation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 31, 64, 65, 257])
@pytest.mark.parametrize("size", [1, 2, 32, 64, 1000])
def test_every_sample_is_used_and_no_batch_holds_one_sample(count, size):
    made = batches(torch.arange(count), size)
    assert torch.equal(torch.cat(made), torch.arange(count))
    assert min(map(len, made)) >= 2 and max(map(len, made)) <= max(3, size)


def test_ranks_share_a_batch():
    whole = batches(torch.arange(100), 32)
    first, second = batches(torch.arange(100), 32, 0, 2), batches(torch.arange(100), 32, 1, 2)
    for a, b, both in zip(first, second, whole):
        assert torch.equal(torch.cat([a, b]), both)


@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_the_eight_symmetries_keep_the_centre_and_differ(size):
    patch = torch.arange(size * size, dtype=torch.float32).reshape(1, 1, size, size)
    made = [symmetry(patch, number) for number in range(8)]
    centre = size // 2
    assert all(one[0, 0, centre, centre] == patch[0, 0, centre, centre] for one in made)
    assert all(torch.equal(one.flatten().sort().values, patch.flatten()) for one in made)
    assert len({tuple(one.flatten().tolist()) for one in made}) == 8
    # What lies right of the centre comes to lie left of it, at the same distance.
    assert made[1][0, 0, centre, centre - 1] == patch[0, 0, centre, centre + 1]


def test_augmentation_none_leaves_patches_as_they_are():
    recipe = choose_recipe(jobs.TrainClassifier("a", "b", augmentation="none"), 1000)
    patches = torch.randn(9, 2, 5, 5)
    assert torch.equal(augment(patches, recipe, torch.Generator().manual_seed(0)), patches)


def test_flips_change_patches_and_full_shifts_more():
    patches = torch.randn(64, 2, 5, 5)
    flips = Recipe(32, 1e-3)
    made = augment(patches, flips, torch.Generator().manual_seed(0))
    assert torch.equal(made[:, :, 2, 2], patches[:, :, 2, 2]) and not torch.equal(made, patches)
    full = choose_recipe(jobs.TrainClassifier("a", "b", augmentation="full", network="simple_cnn"), 1000)
    assert full.jitter > 0 and full.brightness > 0
    moved = augment(patches, full, torch.Generator().manual_seed(0)) - made
    assert moved.std(dim=(2, 3)).max() < 1e-6 and moved.abs().max() > 0.05


@pytest.mark.parametrize(("samples", "batch"), [(10, 64), (1410, 64), (12_800, 64), (12_801, 128), (1_000_000, 512)])
def test_the_automatic_batch_size_follows_network_and_data_alone(samples, batch):
    assert choose_recipe(jobs.TrainClassifier("a", "b"), samples).batch_size == batch
    assert choose_recipe(jobs.TrainClassifier("a", "b", batch_size=7), samples).batch_size == 7


def test_balanced_weights_favour_the_rare_and_average_to_one(tmp_path):
    made = patchsets.dataset(tmp_path, splits=lambda row, col: "train" if col < 40 or row < 12 else "test")
    part = roles(made, share=0).training
    weights = training._class_weights(part, 3, "balanced")
    count = torch.bincount(torch.from_numpy(part.labels))
    assert (weights * count).sum().item() == pytest.approx(len(part), rel=1e-5)
    assert torch.allclose(weights * count, (weights * count)[0].expand(3))
    assert torch.equal(training._class_weights(part, 3, "none"), torch.ones(3))
