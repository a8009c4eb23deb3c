"""The dialog of the segmenter: what of it is seen at first, and which settings belong to which networks."""

import pytest
from deepscape.algorithms import compat
from qgis.core import QgsProcessingException


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


@pytest.mark.parametrize(
    ("name", "value", "label", "told"),
    [
        ("FULL_RESOLUTION", True, "Encoder at full resolution (smp_unet)",
         "FULL_RESOLUTION is True, but the network U-Net has no such setting. Leave FULL_RESOLUTION out, or "
         "choose a NETWORK that has it: smp_unet."),
        ("ENCODER", "resnet34", "Encoder of the smp networks",
         "Leave ENCODER out, or choose a NETWORK that has it: smp_unet, smp_unetplusplus, smp_deeplabv3plus, smp_fpn"),
    ],
)  # fmt: skip
def test_labels_and_errors_name_the_networks_that_have_a_setting(
    algorithm, run, play, tmp_path, name, value, label, told
):
    assert algorithm("trainsegmenter").parameterDefinition(name).description() == label
    play("trainsegmenter", {"result": {}})
    with pytest.raises(QgsProcessingException) as raised:
        run("trainsegmenter", TRAINING=str(tmp_path), OUTPUT=str(tmp_path / "m.safetensors"), **{name: value})
    assert told in str(raised.value)
