"""Patch images on their way to the engine and back: importpatches, exportpatches."""


def test_import(run, play, image, tmp_path):
    target = str(tmp_path / "patches")
    play("importpatches", {"mkdir": "$output"}, {"result": {"accepted": 7, "rejected": 0, "counts": {"1": 7}}})
    outputs = run(
        "importpatches", INPUT=image, LABELS=image, INPUT3=image, SPLIT="validation", NODATA=0, SCALE=0.1, OUTPUT=target
    )
    assert outputs == {"OUTPUT": target, "ACCEPTED": 7}
    job = play.jobs()[-1]
    assert (job["source"]["path"], job["source"]["nodata"], job["labels"]["nodata"]) == (image, 0, None)
    assert [source["path"] for source in job["more_sources"]] == [image]
    assert (job["split"], job["patch_size"], job["scale"], job["offset"]) == ("validation", None, 0.1, None)


def test_export(run, play, tmp_path):
    (tmp_path / "patches").mkdir()
    target = str(tmp_path / "images")
    play("exportpatches", {"mkdir": "$output_folder"}, {"result": {"patch_count": 5}})
    outputs = run("exportpatches", INPUT=str(tmp_path / "patches"), RENUMBER=True, OUTPUT_FOLDER=target)
    assert outputs == {"OUTPUT_FOLDER": target, "PATCH_COUNT": 5}
    job = play.jobs()[-1]
    assert (job["dataset"], job["split"], job["renumber"]) == (str(tmp_path / "patches"), "all", True)
