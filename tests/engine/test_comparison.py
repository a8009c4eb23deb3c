"""Comparing runs by the cards of their models: groups, pairs, differences and verdicts."""

import csv
import math
import re

import numpy as np
import pytest
from deepscape.engine import modelfiles
from deepscape.engine.comparison import compare_runs
from deepscape.engine.metrics import metrics_dict, scores
from deepscape.engine.pairing import Difference, difference, leniency, spoken_difference, spread
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks import jobs
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput

CLASSES = (ClassEntry(1, "grass", "#1b7837"), ClassEntry(4, "tree <old>", "#00441b"))
NAN = float("nan")
NDVI = CardBand("NDVI", 0.5, 0.2, NAN, NAN, expression="(B4 - B3) / (B4 + B3)")
BANDS = tuple(CardBand(f"B{n}", 1.0, 1.0, NAN, NAN) for n in (3, 4))


def matrix(wrong, of=100):
    """Return the matrix of 2 x ``of`` samples, of which ``wrong`` of each class are taken for the other."""
    return np.array([[of - wrong, wrong], [wrong, of - wrong]])


def save(folder, name, wrong, seed=0, bands=BANDS, counts=None, role="test", settings=None, data="sha256:aa", **card):
    """Write a model file whose card says these things; returns its path."""
    result = metrics_dict(scores(matrix(wrong) if counts is None else np.diag(counts)), CLASSES)
    path = folder / f"{name}.safetensors"
    made = Card(
        **{"kind": "network", "network": "compact_cnn", "arguments": {"width": 32}, **card},
        sources=(CardSource(5, tuple(bands)),),
        classes=CLASSES,
        settings={"seed": seed, "epochs": 9, "device": f"cpu{seed}", "threads": seed, **(settings or {})},
        metrics={**result, "accuracy_set": role, "optimistic": role == "validation"},
        training={"datasets": {"training": {"name": "p", "hash": data}, role: {"name": "p", "hash": data}}},
    )
    modelfiles.save_model(str(path), made, {"weight": np.zeros(1)})
    return str(path)


def compare(paths, folder, context=None, **options):
    job = jobs.CompareRuns(tuple(paths), str(folder / "r"), str(folder / "t"), **options)
    return compare_runs(job, context or Context())


def table(folder):
    with open(folder / "t.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(row["group"], row["metric"], row["class"]): row for row in rows}


def test_differences_are_paired_by_seed(tmp_path):
    # Kappa of these matrices is 1 - 2 wrong / 100: 0.8, 0.6, 0.4 without and 0.88, 0.7, 0.48 with NDVI.
    plain = [save(tmp_path, f"plain{seed}", wrong, seed) for seed, wrong in enumerate((10, 20, 30))]
    ndvi = [save(tmp_path, f"ndvi{seed}", wrong, seed, (*BANDS, NDVI)) for seed, wrong in enumerate((6, 15, 26))]
    result = compare([plain[2], ndvi[0], *plain[:2], *ndvi[:0:-1]], tmp_path)
    gains = np.array([0.08, 0.10, 0.08])
    assert result.difference == pytest.approx(gains.mean(), abs=1e-12)
    assert result.standard_error == pytest.approx(gains.std(ddof=1) / math.sqrt(3), abs=1e-12)
    assert result.verdict == "adds" and result.warnings == ()
    rows = table(tmp_path)
    assert {group for group, _, _ in rows} == {"B3, B4", "with NDVI"}
    base = rows["B3, B4", "kappa", ""]
    assert (base["mean"], base["deviation"], base["runs"], base["verdict"]) == ("0.600000", "0.200000", "3", "")
    assert rows["with NDVI", "overall_accuracy", ""]["difference"] == f"{gains.mean() / 2:.6f}"
    # IoU of a class is (100 - wrong) / (100 + wrong).
    before = [(100 - wrong) / (100 + wrong) for wrong in (10, 20, 30)]
    after = [(100 - wrong) / (100 + wrong) for wrong in (6, 15, 26)]
    assert rows["with NDVI", "iou", "4"]["difference"] == f"{np.mean(after) - np.mean(before):.6f}"
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert result.output == str(tmp_path / "r.html") and "tree &lt;old&gt;" in page
    assert "NDVI = (B4 - B3) / (B4 + B3)" in page and "adds accuracy" in page
    by_seed = " ".join(re.sub("<[^>]*>", " ", page.split("Seed by seed")[1].split("</section>")[0]).split())
    assert "0 0.800 0.880 +0.080 1 0.600 0.700 +0.100 2 0.400 0.480 +0.080" in by_seed


def test_within_two_errors_there_is_no_improvement_and_beyond_there_is_harm(tmp_path):
    base = [save(tmp_path, f"a{seed}", 20, seed) for seed in range(3)]
    noisy = [save(tmp_path, f"b{s}", 20 - gain, s, settings={"epochs": 8}) for s, gain in enumerate((4, -3, 2))]
    worse = [save(tmp_path, f"c{seed}", 22 + seed, seed, network="simple_cnn") for seed in range(3)]
    result = compare([*base, *noisy], tmp_path)
    assert result.verdict == "no improvement" and result.difference == pytest.approx(0.02, abs=1e-12)
    assert ("epochs 8", "kappa", "") in table(tmp_path)
    result = compare([*base, *worse], tmp_path, metric="overall_accuracy")
    assert result.verdict == "harms" and result.difference == pytest.approx(-0.03, abs=1e-12)
    # The other way round, and the third group is compared with the same one.
    result = compare([*base, *worse, *noisy], tmp_path, baseline=worse[1])
    assert result.verdict == "adds" and result.difference == pytest.approx(0.06, abs=1e-12)
    groups = {group for group, _, _ in table(tmp_path)}
    assert len(groups) == 3 and all("CNN" in group for group in groups)


@pytest.mark.parametrize("gain", [0, 4])
def test_equal_differences_tell_nothing_of_chance(tmp_path, gain):
    # 12 right instead of 16 of 20, three times: a test part of few samples knows few accuracies.
    paths = [
        save(tmp_path, f"{e}{seed}", 20 - gain * (e == 9), seed, settings={"epochs": e})
        for e in (8, 9)
        for seed in range(3)
    ]
    result = compare(paths, tmp_path)
    assert result.difference == pytest.approx(gain / 50) and result.standard_error == pytest.approx(0, abs=1e-12)
    assert result.verdict == "unknown"
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "all seeds have the same difference, which tells nothing of chance." in page


def test_few_seeds_are_warned_of_and_one_tells_no_error(tmp_path):
    paths = [save(tmp_path, f"{e}{seed}", e, seed, settings={"epochs": e}) for e in (8, 9) for seed in range(2)]
    context = Context()
    # -0.02 in one seed, -0.05 in the other: beyond two standard errors of two seeds, which chance reaches often.
    paths[-1] = save(tmp_path, "93", 10, 1, settings={"epochs": 9})
    result = compare(paths, tmp_path, context)
    assert result.verdict == "unknown" and result.standard_error > 0
    assert context.warnings[0].startswith("2 seeds are compared")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "over 2 seeds; two seeds cannot tell how much of it is chance: train both with 3 or more." in page
    context = Context()
    result = compare(paths[::2], tmp_path, context)
    assert (result.verdict, result.standard_error) == ("unknown", None)
    assert context.warnings[0].startswith("1 seed is compared")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "over 1 seed; one seed cannot tell how much of it is chance: train both with 3 or more." in page
    assert "a t-test at 5 % would ask for 4.3 standard errors" in page


def test_seeds_that_one_group_lacks_are_left_out(tmp_path):
    base = [save(tmp_path, f"a{seed}", 20, seed) for seed in range(3)]
    other = [save(tmp_path, f"b{seed}", 10, seed, (*BANDS, NDVI)) for seed in range(1, 4)]
    context = Context()
    result = compare([*base, *other], tmp_path, context)
    assert result.difference == pytest.approx(0.2)
    assert any("do not both have seed 0, 3" in text for text in context.warnings)
    page = (tmp_path / "r.html").read_text(encoding="utf-8").split("Seed by seed")[1].split("</section>")[0]
    by_seed = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "0 0.600 n/a n/a 1 0.600 0.800 +0.200" in by_seed and "3 n/a 0.800 n/a" in by_seed
    with pytest.raises(BadInput, match="No seed is common to 'with NDVI' \\(3\\) and 'B3, B4' \\(0\\)"):
        compare([base[0], other[2]], tmp_path)


def test_other_samples_are_named(tmp_path):
    base = save(tmp_path, "a", 0, counts=(90, 50))
    other = save(tmp_path, "b", 0, bands=(*BANDS, NDVI), counts=(90, 40))
    with pytest.raises(BadInput, match=r"'a.safetensors' and 'b.safetensors' \(seed 0\) .* 50 and 40 of class 4"):
        compare([base, other], tmp_path)
    judged = save(tmp_path, "c", 0, bands=(*BANDS, NDVI), counts=(90, 50), role="validation")
    with pytest.raises(BadInput, match=r"on its test samples, 'c.safetensors' .* on its validation samples"):
        compare([base, judged], tmp_path)


def test_runs_of_one_seed_are_told_apart_by_their_training_data(tmp_path):
    paths = [save(tmp_path, f"{d}{seed}", 9, seed, data=f"sha256:{d}") for d in ("few", "many") for seed in range(3)]
    assert compare(paths, tmp_path).difference == 0
    assert ("training data p (many)", "kappa", "") in table(tmp_path)
    with pytest.raises(BadInput, match="are alike in everything, and both of seed 0"):
        compare([paths[0], save(tmp_path, "again", 9, 0, data="sha256:few")], tmp_path)


def test_a_rate_that_is_searched_anew_for_each_seed_makes_no_group(tmp_path):
    paths = [
        save(
            tmp_path, f"{seed}{len(bands)}", 9, seed, bands, settings={"find_rate": True, "learning_rate": 0.001 * seed}
        )
        for bands in (BANDS, BANDS[:1])
        for seed in range(3)
    ]
    assert compare(paths, tmp_path).verdict == "unknown"
    assert {group for group, _, _ in table(tmp_path)} == {"B3, B4", "without B4"}


def test_a_rate_that_was_found_is_called_so_and_its_numbers_stand_in_the_table(tmp_path):
    found = {"find_rate": True, "learning_rate": 0.02}
    paths = [
        save(tmp_path, "given", 9, settings={"find_rate": False, "learning_rate": 0.01}),
        *(
            save(tmp_path, f"found{s}", 9, s, settings={**found, "learning_rate": r})
            for s, r in ((0, 0.0298), (1, 0.02))
        ),
        save(tmp_path, "other", 9, bands=BANDS[:1], settings=found),
    ]
    compare([*paths[:3]], tmp_path)
    assert names(tmp_path) == ["learning rate 0.01", "learning rate found by a range test"]
    page = " ".join(re.sub("<[^>]*>", " ", (tmp_path / "r.html").read_text(encoding="utf-8")).split())
    assert "Learning rate 0.01 found by a range test: 0.02 to 0.0298" in page and "ind rate" not in page
    compare([paths[1], paths[3]], tmp_path)
    page = " ".join(re.sub("<[^>]*>", " ", (tmp_path / "r.html").read_text(encoding="utf-8")).split())
    assert "Learning rate found by a range test: 0.0298 found by a range test: 0.02" in page


def test_alike_runs_alone_give_their_spread(tmp_path):
    context = Context()
    result = compare([save(tmp_path, f"a{seed}", 10 * seed, seed) for seed in range(3)], tmp_path, context)
    assert (result.difference, result.verdict) == (None, "unknown")
    assert any("nothing to compare" in text for text in context.warnings)
    row = table(tmp_path)["all runs", "kappa", ""]
    assert (row["mean"], row["deviation"]) == ("0.800000", "0.200000")


def test_validation_numbers_and_shared_pixels_are_warned_of(tmp_path):
    context = Context()
    paths = [save(tmp_path, f"a{s}", 9, s, role="validation", settings={"epochs": e}) for s in range(3) for e in (1, 2)]
    compare([*paths, save(tmp_path, "b", 9, 0, role="validation", settings={"epochs": 3})], tmp_path, context)
    assert any("they are optimistic" in text for text in context.warnings)


def test_a_model_without_accuracy_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"The accuracy of 'b.safetensors' is not known"):
        compare([save(tmp_path, "a", 1), save(tmp_path, "b", 1, 1, role="none")], tmp_path)
    with pytest.raises(BadInput, match="The number of INPUTS is 1, less than 2"):
        jobs.CompareRuns(("a", "a"))
    with pytest.raises(BadInput, match="METRIC 'iou' is not a valid choice"):
        jobs.CompareRuns(("a", "b"), metric="iou")


def test_titles_say_what_bands_are_more_and_less(tmp_path):
    many = tuple(CardBand(f"B{n}", 1.0, 1.0, NAN, NAN) for n in range(8))
    swapped = save(tmp_path, "c", 9, bands=(*many[1:], NDVI))
    compare([save(tmp_path, "a", 9, bands=many), save(tmp_path, "b", 9, bands=many[:7]), swapped], tmp_path)
    assert {group for group, _, _ in table(tmp_path)} == {"8 bands", "without B7", "with NDVI, without B0"}


def names(folder):
    return list(dict.fromkeys(group for group, _, _ in table(folder)))


def test_names_hold_what_sets_groups_apart_and_nothing_else(tmp_path):
    forest = {"kind": "forest", "network": "random_forest", "arguments": {"trees": 100, "features": "window"}}
    own = {"learning_rate": 0.001, "warm_up": 0.3, "jitter": 0.2, "label_smoothing": 0.1, "flips": True}
    base = save(tmp_path, "a", 9, settings=own)
    longer = save(tmp_path, "b", 8, settings={**own, "epochs": 3})
    trees = save(tmp_path, "c", 7, settings={"max_features": "sqrt"}, **forest)
    deep = save(tmp_path, "d", 6, settings={"max_features": "sqrt", "max_depth": 5}, **forest)
    compare([base, trees], tmp_path)
    assert names(tmp_path) == ["Compact CNN", "Random Forest"]
    compare([base, longer, trees, deep], tmp_path)
    assert names(tmp_path) == [
        "Compact CNN; epochs 9", "Compact CNN; epochs 3", "Random Forest; max depth none", "Random Forest; max depth 5"
    ]  # fmt: skip
    page = (tmp_path / "r.html").read_text(encoding="utf-8").split("What differs")[1].split("</section>")[0]
    rows = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "Width 32 32 \u2013 \u2013" in rows and "Max features \u2013 \u2013 sqrt sqrt" in rows
    # An argument that differs stays in the name where another fact alone would tell the groups apart.
    wide = save(tmp_path, "e", 6, bands=(*BANDS, NDVI), settings=own, arguments={"width": 64})
    compare([base, wide, trees], tmp_path)
    assert names(tmp_path) == [
        "B3, B4; Compact CNN; width 32",
        "with NDVI; Compact CNN; width 64",
        "B3, B4; Random Forest",
    ]
    with pytest.raises(BadInput, match=r"No seed is common to 'Random Forest' \(1\) and 'Compact CNN' \(0\)\."):
        compare([base, save(tmp_path, "f", 7, 1, **forest)], tmp_path)


def test_a_name_holds_three_facts_or_as_many_as_tell_groups_apart(tmp_path):
    facts = {"epochs": 1, "patience": 1, "loss": "dice", "recipe": "course", "monitor": "loss"}
    paths = [save(tmp_path, "a", 9, settings=dict.fromkeys(facts, 0)), save(tmp_path, "b", 9, settings=facts)]
    compare(paths, tmp_path)
    assert names(tmp_path) == ["epochs 0; patience 0; loss 0", "epochs 1; patience 1; loss dice"]
    compare([*paths, save(tmp_path, "c", 9, settings={**facts, "recipe": "otbtf"})], tmp_path)
    assert names(tmp_path)[1:] == [
        "epochs 1; patience 1; loss dice; recipe course", "epochs 1; patience 1; loss dice; recipe otbtf"
    ]  # fmt: skip


def test_the_seeds_of_a_difference_are_counted_and_listed(tmp_path):
    paths = [save(tmp_path, f"{e}{seed}", e, seed, settings={"epochs": e}) for e in (8, 9) for seed in range(2)]
    for given, cell in ((paths, "2 seeds: 0, 1"), (paths[::2], "1 seed: 0")):
        compare(given, tmp_path)
        assert f">{cell}<" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_spread_and_difference():
    assert spread([None, 1.0, 3.0]).mean == 2 and spread([1.0, 3.0]).deviation == pytest.approx(math.sqrt(2))
    assert spread([]).mean is None and spread([1.0]).deviation is None
    found = difference([(0.1, 0.2), (None, 0.4), (0.2, 0.5)])
    assert (found.pairs, round(found.mean, 12), round(found.standard_error, 12)) == (2, 0.2, 0.1)
    assert found.verdict == "unknown" and "two seeds cannot tell" in found.reason("x")
    assert spoken_difference(Difference(-0.0001, 0.01, 3)) == "+0.000\u00a0±\u00a00.010"
    assert spoken_difference(Difference(-0.1, None, 1)) == "-0.100" and spoken_difference(difference([])) == "n/a"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Difference(0.029, 0.000, 2), "unknown"),
        (Difference(0.029, 0.010, 2), "unknown"),
        (Difference(0.029, 0.000, 3), "unknown"),
        (Difference(0.0, 0.0, 3), "unknown"),
        (Difference(0.029, None, 3), "unknown"),
        (Difference(None, None, 0), "unknown"),
        (Difference(0.029, 0.010, 3), "adds"),
        (Difference(-0.029, 0.010, 5), "harms"),
        (Difference(0.019, 0.010, 3), "no improvement"),
    ],
)
def test_a_verdict_takes_three_seeds_and_differences_that_scatter(found, verdict):
    assert found.verdict == verdict
    assert bool(found.reason("give more")) == (verdict == "unknown")


def test_how_lenient_the_rule_is_follows_the_seeds():
    # Student's t at 0.975 with 2, 4 and 9 degrees of freedom; below three seeds there is no rule.
    for pairs, errors in ((3, "4.3"), (5, "2.8"), (10, "2.3")):
        text = leniency(pairs)
        assert text.startswith(f"With {pairs} seeds") and f"would ask for {errors} standard" in text
    assert leniency(1) == leniency(2) == leniency(3)
