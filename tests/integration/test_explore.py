"""The report, and the corpora that ingest only whole: made noise, tables, 16 bits."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from integration.support import SCENES, TEMPLATES, run_here, write_pairs, write_tracking
from mlflow import MlflowClient
from PIL import Image

from degrain.imaging.codecs import decode, encode_png
from degrain.imaging.pixels import sixteen_bits
from degrain.loading.resident import make_resident
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage

pytestmark = pytest.mark.ray
FIGURES = [
    "cameras",
    "settings",
    "brightness",
    "histograms",
    "photos",
    "quality",
    "noise",
    "correlation",
]
FIGURES += ["shifts", "exposures", "splits"]


@pytest.fixture(autouse=True)
def on_shared_cluster(ray_cluster: None) -> None:
    """Commands join the cluster that the tests share."""


def test_the_report_shows_everything_in_one_file(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES, side=160, shots=2)
    (corpus / "noisy" / "bench_1.png").write_bytes(b"<html>not found</html>")
    (corpus / "noisy" / "cliff_1.png").write_bytes((corpus / "clean" / "cliff_1.png").read_bytes())
    out, tracking = tmp_path / "out", write_tracking(tmp_path)
    argv = [
        "--corpus",
        f"pairs={corpus}",
        "--out",
        out,
        "--patch-size",
        64,
        "--max-refused",
        0.3,
        *TEMPLATES,
    ]
    assert run_here("ingest", argv, tmp_path).status == 0
    done = run_here(
        "explore",
        ["--data", out, "--out", tmp_path / "report", "--mlflow", tracking],
        tmp_path,
    )
    assert done.status == 0, done.err
    assert (done.summary["pairs"], done.summary["refused"], done.summary["examined"]) == (10, 2, 8)
    page = (tmp_path / "report" / "exploration.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', page) == [], (
        "the page needs nothing else"
    )
    assert page.count('<img class="figure"') == len(FIGURES)
    assert "it is not a photo in a known format" in page
    assert "are the same picture" in page
    assert re.search(r"\d+ clean photos were given the exposure", page)
    assert "does not decode" in page
    for name in FIGURES:
        figure = np.asarray(
            Image.open(io.BytesIO((tmp_path / "report" / f"{name}.png").read_bytes())).convert("L")
        )
        assert figure.shape[1] >= 1000
        assert figure.std() > 5, f"{name} is empty"
    artifacts = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").list_artifacts(
        done.summary["run_id"], "report"
    )
    assert {Path(a.path).name for a in artifacts} == {
        "exploration.html",
        *(f"{name}.png" for name in FIGURES),
    }

    few = run_here(
        "explore",
        ["--data", out, "--out", tmp_path / "few", "--mlflow", tracking, "--photos", 3],
        tmp_path,
    )
    assert few.summary["examined"] == 3
    assert "show 3 of the 8 pairs" in (tmp_path / "few" / "exploration.html").read_text()


def test_clean_photos_get_the_noise_of_other_pairs(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES, side=160)
    measured = [
        "--corpus",
        f"pairs={corpus}",
        "--out",
        tmp_path / "measured",
        "--patch-size",
        64,
        *TEMPLATES,
    ]
    assert run_here("ingest", measured, tmp_path).status == 0
    clean = [
        "--corpus",
        f"clean={corpus / 'clean'}",
        "--patch-size",
        64,
        "--noise",
        f"like:{tmp_path / 'measured'}",
    ]
    done = run_here("ingest", [*clean, "--out", tmp_path / "made"], tmp_path)
    assert done.status == 0, done.err
    made, real = (PatchSet.open(str(tmp_path / name), Storage()) for name in ("made", "measured"))
    assert {row.noise for row in made.catalog} != {None}
    levels = []
    for patch_set in (made, real):
        pairs = [patch_set.source.load(row) for row in patch_set.catalog]
        levels.append(np.mean([np.std(noisy.astype(float) - clean) for noisy, clean in pairs]))
    assert levels[0] == pytest.approx(levels[1], rel=0.3)
    again = run_here("ingest", [*clean, "--out", tmp_path / "made"], tmp_path)
    assert again.summary["reused"] is True
    for row in made.photos("train")[:1]:
        first = made.read_shard(next(s for s in made.manifest.shards if s.key == row.shard))[0][0]
        assert np.array_equal(first, made.source.load(row)[0][:64, :64]), (
            "the same noise every time"
        )


def test_sixteen_bits_stay_sixteen_from_a_table_to_training(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES, side=64)
    random = np.random.default_rng(0)
    for path in sorted((corpus / "noisy").iterdir())[:3]:
        deep = sixteen_bits(decode(path.read_bytes()))
        deep = np.clip(deep.astype(int) + random.integers(0, 256, deep.shape), 0, 65535).astype(
            np.uint16
        )
        path.write_bytes(encode_png(deep))
    table = corpus / "pairs.csv"
    lines = [f"noisy/{s}_0.png,clean/{s}_0.png,{s},007" for s in SCENES]
    table.write_text("\n".join(["noisy,clean,scene,camera", *lines]) + "\n")
    done = run_here(
        "ingest",
        ["--corpus", f"pairs={table}", "--out", tmp_path / "o", "--patch-size", 32],
        tmp_path,
    )
    assert done.status == 0, done.err
    patch_set = PatchSet.open(str(tmp_path / "o"), Storage())
    assert sorted(row.bit_depth or 0 for row in patch_set.catalog) == [8, 8, 16, 16, 16]
    assert {row.camera for row in patch_set.catalog} == {"007"}
    for row in patch_set.catalog:
        shard = next(s for s in patch_set.manifest.shards if s.key == row.shard)
        noisy, _ = patch_set.read_shard(shard)
        assert noisy.dtype == (np.uint16 if row.bit_depth == 16 else np.uint8)
        assert np.array_equal(noisy[0], decode(Path(row.noisy).read_bytes())[:32, :32])
    metadata = make_resident(patch_set, "train").metadata
    assert metadata is not None
    assert len(metadata.groups) == patch_set.manifest.patches("train")
    assert set(metadata.corpora) == {row.corpus for row in patch_set.catalog}
    argv = [
        "--data",
        tmp_path / "o",
        "--mlflow",
        write_tracking(tmp_path),
        "--out",
        tmp_path / "runs",
        "--balance",
        1,
    ]
    small = ["--arguments", '{"width": 4}', "--steps", 2, "--batch-size", 2]
    trained = run_here("train", [*argv, *small], tmp_path)
    assert trained.status == 0, trained.err
    photo = sorted((corpus / "noisy").iterdir())[0]
    model = tmp_path / "runs" / trained.summary["name"] / "model"
    applied = run_here("denoise", [photo, "--out", tmp_path / "clean", "--model", model], tmp_path)
    assert applied.status == 0, applied.err
    assert decode((tmp_path / "clean" / photo.name).read_bytes()).dtype == np.uint16
