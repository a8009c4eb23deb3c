"""Comparing runs from the toolbox: several model files, and what becomes of the answer."""


def test_the_models_keep_their_order_and_the_verdict_is_an_output(run, play, tmp_path):
    models = [str(tmp_path / name) for name in ("b é.safetensors", "a.safetensors")]
    for path in models:
        with open(path, "w") as file:
            file.write("a model")
    answer = {"difference": 0.02, "standard_error": None, "verdict": "unknown"}
    play("compareruns", {"write": ["$output", "<html>"]}, {"result": answer})
    outputs = run("compareruns", INPUTS=models, METRIC="mean_iou", OUTPUT=str(tmp_path / "r.html"))
    job = play.jobs()[-1]
    assert (job["models"], job["metric"], job["csv"], job["baseline"]) == (models, "mean_iou", "", "")
    assert outputs["OUTPUT"] == str(tmp_path / "r.html") and "CSV" not in outputs
    assert (outputs["DIFFERENCE"], outputs["STANDARD_ERROR"], outputs["VERDICT"]) == (0.02, None, "unknown")


def test_a_missing_model_is_named(algorithm, context, tmp_path):
    missing = str(tmp_path / "none.safetensors")
    ok, text = algorithm("compareruns").checkParameterValues({"INPUTS": [missing]}, context)
    assert not ok and text == f"INPUTS '{missing}' does not exist. Check the path."
