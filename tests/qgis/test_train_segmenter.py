"""The dialog of the segmenter: what of it is seen at first."""

from deepscape.algorithms import compat


def test_an_image_and_its_labels_are_seen_first_and_patch_datasets_are_advanced(algorithm):
    segmenter = algorithm("trainsegmenter")
    seen = [each.name() for each in segmenter.parameterDefinitions() if not each.flags() & compat.ADVANCED]
    assert seen == [
        "INPUT", "LABELS", "LABEL_FEATURES", "LABEL_FIELD", "BACKGROUND", "AREAS", "AREA_FIELD", "PATCH_SIZE",
        "VALIDATION_SHARE", "NETWORK", "WIDTH", "RECIPE", "EPOCHS", "PATIENCE", "LEGEND", "OUTPUT", "REPORT",
    ]  # fmt: skip
    datasets = [segmenter.parameterDefinition(name) for name in ("TRAINING", "VALIDATION", "TEST", "MORE_DATASETS")]
    assert all(each.flags() & compat.OPTIONAL and each.help() for each in datasets)
    assert segmenter.parameterDefinition("PATCH_SIZE").description() == "Patch size in pixels"
