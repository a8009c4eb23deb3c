"""What a card keeps of the ground that a model learned from."""

import json
from dataclasses import replace

import numpy as np
import pytest
from deepscape.engine import trainingground
from deepscape.engine.datasets import DatasetScene
from deepscape.engine.trainingground import Ground, coverage, mask_ground, patch_ground, read_grounds, written
from deepscape.tasks.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

SCENE = DatasetScene("scène", "/a/scene.tif", "LOCAL_CS[]", (10.0, 0.0, 500.0, 0.0, -10.0, 900.0), 60, 40, 10.0)


def covered(ground):
    return coverage(ground.boxes, (ground.scene.height, ground.scene.width))


@given(st.integers(0, 999), st.integers(1, 40), st.floats(0.02, 0.98))
def test_boxes_of_a_mask_cover_it_once(seed, deep, share):
    mask = np.random.default_rng(seed).random((40, 60)) < share
    ground = mask_ground(SCENE, ((top, mask[top : top + deep]) for top in range(0, 40, deep)))
    assert np.array_equal(covered(ground), mask)
    assert np.prod(ground.boxes[:, 2:] - ground.boxes[:, :2], axis=1).sum() == mask.sum()


def test_areas_of_straight_edges_are_few_boxes():
    mask = np.zeros((40, 60), bool)
    mask[3:30, 5:20] = mask[10:40, 25:60] = True
    ground = mask_ground(SCENE, [(0, mask[:13]), (13, mask[13:])])
    assert sorted(map(tuple, ground.boxes.tolist())) == [(3, 5, 30, 20), (10, 25, 40, 60)]


def test_patches_are_boxes_inside_their_scene():
    ground = patch_ground(SCENE, np.array([0, 20, 39]), np.array([59, 10, 30]), 5)
    assert ground.boxes.tolist() == [[0, 57, 3, 60], [18, 8, 23, 13], [37, 28, 40, 33]]
    even = patch_ground(SCENE, np.array([8]), np.array([8]), 4)
    assert even.boxes.tolist() == [[6, 6, 10, 10]]


def test_the_card_tells_the_ground_again():
    chance = np.random.default_rng(3)
    one = patch_ground(SCENE, chance.integers(0, 40, 50), chance.integers(0, 60, 50), 5)
    again = patch_ground(replace(SCENE, height=45), np.array([44, 44]), np.array([7, 7]), 3)
    elsewhere = replace(SCENE, label="b", transform=(10.0, 0, 0, 0, -10.0, 0))
    other = patch_ground(elsewhere, np.array([4]), np.array([5]), 3)
    imported = Ground(replace(SCENE, label="imported", width=0, height=0), np.empty((0, 4), np.int64))
    plain = json.loads(json.dumps(written([one, other, again, imported])))
    assert "/a/scene.tif" not in json.dumps(plain) and [part["cell"] for part in plain["parts"]] == [1, 1]
    (first, second), unknown = read_grounds({"field": plain})
    assert unknown == ["imported"] and (first.scene.height, first.scene.label) == (45, "scène")
    expected = coverage(one.boxes, (45, 60))
    expected[43:45, 6:9] = True
    assert np.array_equal(covered(first), expected)
    assert second.boxes.tolist() == [[3, 4, 6, 7]] and second.scene.transform[2] == 0


def test_too_many_boxes_are_widened(monkeypatch):
    monkeypatch.setattr(trainingground, "MOST_BOXES", 40)
    scene = replace(SCENE, width=1000, height=900)
    chance = np.random.default_rng(4)
    ground = patch_ground(scene, chance.integers(0, 900, 500), chance.integers(0, 1000, 500), 3)
    (wide,), _ = read_grounds({"field": written([ground])})
    assert len(wide.boxes) <= 40 and wide.cell > 1
    assert not (covered(ground) & ~covered(wide)).any()
    # Nothing further away than a cell is told to be the ground of a patch.
    few, _ = read_grounds({"field": written([replace(ground, boxes=ground.boxes[:30])])})
    assert few[0].cell == 1 and np.array_equal(covered(few[0]), coverage(ground.boxes[:30], (900, 1000)))


def test_ten_thousand_patches_take_some_ten_kilobytes():
    scene = replace(SCENE, width=10980, height=10980)
    chance = np.random.default_rng(5)
    ground = patch_ground(scene, chance.integers(0, 10980, 10_000), chance.integers(0, 10980, 10_000), 16)
    assert len(json.dumps(written([ground]))) < 60_000


def test_what_an_initial_model_learned_from_is_kept():
    old = patch_ground(SCENE, np.array([4]), np.array([5]), 3)
    new = patch_ground(replace(SCENE, transform=(10.0, 0, 0, 0, -10.0, 0)), np.array([9]), np.array([9]), 3)
    both = written([new], {"field": written([old]), "counts": {}})
    grounds, unknown = read_grounds({"field": both})
    assert [ground.boxes.tolist() for ground in grounds] == [[[8, 8, 11, 11]], [[3, 4, 6, 7]]] and unknown == []
    assert written([new], {"counts": {}})["unknown"] == ["INITIAL_MODEL"]


def test_plain_pictures_are_told_apart_from_no_other():
    plain = replace(SCENE, crs="", transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    one, other = (patch_ground(replace(plain, label=name), np.array([4]), np.array([5]), 3) for name in "ab")
    assert written([one, other]) == {"parts": [], "unknown": ["a", "b"]}
    assert len(written([one, one])["parts"]) == 1


@pytest.mark.parametrize(
    "change",
    [{"boxes": 2}, {"boxes": -1}, {"boxes": 10**9}, {"data": "&"}, {"data": "AAAA"}, {"size": [3, 3]}, {"crs": None}],
)
def test_a_broken_card_is_refused(change):
    part = written([patch_ground(SCENE, np.array([4]), np.array([5]), 3)])["parts"][0]
    part.update(change)
    if change == {"crs": None}:
        del part["crs"]
    with pytest.raises(BadInput, match="in no known form"):
        read_grounds({"field": {"parts": [part], "unknown": []}})
