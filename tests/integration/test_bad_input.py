"""What a user can get wrong: one line, exit status 2, nothing written, and where it can be known
before, no Ray.
"""

import os
import signal
import time
from pathlib import Path

import pytest
from integration.support import (
    SCENES,
    TEMPLATES,
    free_ports,
    run_here,
    start_pipeline,
    write_pairs,
    write_tracking,
)
from mlflow import MlflowClient

from degrain import cluster
from degrain.errors import UserError


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cluster, "start_ray", lambda: pytest.fail("started Ray before the input was checked")
    )


BEFORE_RAY = [
    ("tune", ["--models", "red1O"], r"unknown model 'red1O'; did you mean 'red10'? Known models:"),
    ("tune", ["--trials", "1"], "4 models need at least as many trials, got 1"),
    ("tune", ["--steps", "0"], "--steps must be at least 1, got 0"),
    ("tune", ["--steps", "many"], "argument --steps: 'many' is not a number; see"),
    (
        "tune",
        ["--batch-size", "1", "--workers", "2"],
        "--batch-size 1 leaves some of 2 workers without a patch",
    ),
    ("tune", ["--crop", "3"], "--crop must be at least 16 pixels, got 3"),
    ("tune", ["--gpus", "-1"], "--gpus must be a number that is not negative, got -1"),
    ("tune", ["--out", "{tmp}/typo.yaml"], "'{tmp}/typo.yaml' is a file; name a folder"),
    (
        "tune",
        ["--mlflow", "{tmp}"],
        "cannot read '{tmp}': Is a directory; name another file with --mlflow",
    ),
    ("tune", ["--summary", "{tmp}"], "cannot write '{tmp}': it is a folder"),
    ("tune", ["--tpyo"], "unrecognized arguments: --tpyo; see"),
    ("tune", ["--data", "{tmp}/nowhere"], "is not a patch set: it has no manifest.json"),
    ("tune", ["--mlflow", "{tmp}/none.yaml"], "'{tmp}/none.yaml' does not exist"),
    (
        "tune",
        ["--mlflow", "{tmp}/typo.yaml"],
        "unknown key 'experimnt'; did you mean 'experiment'?",
    ),
    (
        "tune",
        ["--summary", "{tmp}/no/such/folder/s.json"],
        "there is no folder '{tmp}/no/such/folder'",
    ),
    ("train", ["--data", "{tmp}/nowhere", "--model", "unet3000"], "unknown model 'unet3000'"),
    ("train", ["--data", "{tmp}/nowhere"], "is not a patch set"),
    ("train", ["--data", "ftp://host/x"], "only local paths and s3:// are supported"),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--arguments", '{{"widht": 3}}'],
        "takes no argument 'widht'",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--learning-rate", "-1"],
        "--learning-rate must be a positive number",
    ),
    ("train", [], "name a patch set with --data, or a run to resume with --resume"),
    ("train", ["--data", "{tmp}/nowhere", "--workers", "0"], "--workers must be at least 1, got 0"),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--workers", "4:2"],
        "--workers must be a range MIN:MAX with MIN <= MAX, got 4:2",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--workers", "-2"],
        "--workers must be a number, or a range such as 2:8, got '-2'",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--workers", "2:"],
        "--workers must be a number, or a range such as 2:8, got '2:'",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--gpus-per-worker", "-1"],
        "--gpus-per-worker must be a number that is not",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--restarts", "-1"],
        "--restarts must not be negative, got -1",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--keep-best", "0"],
        "--keep-best must be at least 1, for the best",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--gpus-per-worker", "0.5", "--workers", "2"],
        "--gpus-per-worker must be whole",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--batch-size", "2", "--workers", "2:3"],
        "--batch-size 2 leaves some of 3 workers",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--micro-batch", "0"],
        "--micro-batch must be at least 1, got 0",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--validate-every", "0"],
        "--validate-every must be at least 1, got 0",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--start", "{tmp}/nowhere"],
        "there is no model '{tmp}/nowhere'",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--start", "models:/x@champion"],
        "model 'models:/x@champion' does not exist",
    ),
    (
        "train",
        ["--resume", "red10-1", "--out", "{tmp}"],
        "run 'red10-1' does not exist in '{tmp}'; check --resume and --out",
    ),
    ("train", ["--resume", "../list", "--out", "{tmp}"], "run '../list' does not exist in"),
    (
        "train",
        ["--resume", "list", "--out", "{tmp}"],
        "cannot resume 'list': '{tmp}/list/run.json' is damaged",
    ),
    (
        "train",
        ["--resume", "fine", "--out", "{tmp}", "--steps", "7"],
        "--steps cannot be changed on the way; leave it out",
    ),
    (
        "train",
        [
            "--resume",
            "fine",
            "--out",
            "{tmp}",
            "--seed",
            "0",
        ],  # the default, but not of that run
        "--seed cannot be changed on the way; leave it out",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--decay-steps", "9"],
        "--decay-steps 9 needs the schedule 'step', got 'cosine'",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--arguments", "width"],
        "argument --arguments: 'width' is not JSON",
    ),
    (
        "train",
        ["--data", "{tmp}/nowhere", "--arguments", "3"],
        "argument --arguments: '3' is not a JSON object",
    ),
    (
        "ingest",
        ["--corpus", "sid={tmp}", "--out", "{tmp}/o"],
        "unknown corpus 'sid'; did you mean 'sidd'?",
    ),
    ("ingest", ["--corpus", "{tmp}", "--out", "{tmp}/o"], "write NAME=URI"),
    (
        "ingest",
        ["--corpus", "sidd={tmp}", "--out", "{tmp}/o", "--stride", "0"],
        "--stride must be between 1 and",
    ),
    (
        "ingest",
        ["--corpus", "sidd={tmp}", "--out", "{tmp}/o", "--max-refused", "7"],
        "a share between 0 and 1",
    ),
    (
        "ingest",
        ["--corpus", "clean={tmp}", "--out", "{tmp}/o", "--noise", "gausian:9"],
        "--noise 'gausian:9' cannot be made",
    ),
    (
        "ingest",
        ["--corpus", "clean={tmp}", "--out", "{tmp}/o", "--noise", "poisson:1"],
        "it takes 2 numbers, none negative",
    ),
    ("ingest", ["--corpus", "sidd={tmp}", "--out", ""], "a path is empty"),
    ("denoise", ["{tmp}/nothing.png", "--out", "{tmp}/o"], "there is no photo '{tmp}/nothing.png'"),
    ("denoise", ["{tmp}/photo.png", "--out", "{tmp}"], "would be written over"),
    (
        "denoise",
        ["{tmp}/photo.png", "--out", "{tmp}/o", "--model", "{tmp}"],
        "is not a degrain model",
    ),
    (
        "denoise",
        ["{tmp}/photo.png", "--out", "{tmp}/o", "--model", "models:/degrain-denoiser@champion"],
        "model 'models:/degrain-denoiser@champion' does not exist",
    ),
    (
        "denoise",
        ["{tmp}/photo.png", "--out", "{tmp}/o", "--model", "models:/x"],
        "write models:/NAME@ALIAS or",
    ),
    (
        "denoise",
        ["{tmp}/photo.png", "--out", "{tmp}/o", "--model", "runs:/1/model"],
        "there is no model in the run 'runs:/1/model'",
    ),
    (
        "denoise",
        ["{tmp}/photo.png", "--out", "{tmp}/o", "--model", "{tmp}/list"],
        "its card has format None",
    ),
    ("denoise", ["{tmp}/photo.png", "--out", "{tmp}/typo.yaml"], "is a file; name a folder"),
    (
        "evaluate",
        ["--out", "{tmp}/o"],
        "name either a patch set with --data, or corpora with --pairs",
    ),
    (
        "evaluate",
        ["--data", "{tmp}/nowhere", "--pairs", "sidd={tmp}", "--out", "{tmp}/o"],
        "name either a patch set with --data, or corpora with --pairs NAME=URI",
    ),
    ("evaluate", ["--pairs", "sid={tmp}", "--out", "{tmp}/o"], "did you mean 'sidd'?"),
    (
        "evaluate",
        ["--pairs", "sidd={tmp}", "--split", "test", "--out", "{tmp}/o"],
        "--split is a part of a patch set; leave it out with --pairs",
    ),
    (
        "evaluate",
        ["--data", "{tmp}/nowhere", "--noisy-name", "{{name}}.png", "--out", "{tmp}/o"],
        "are options of --pairs; a patch set has its own",
    ),
    (
        "evaluate",
        ["--pairs", "sidd={tmp}/nowhere", "--models", "noisy", "--out", "{tmp}/o"],
        "there is no folder '{tmp}/nowhere'; check the path of corpus 'sidd'",
    ),
    (
        "evaluate",
        ["--pairs", "pairs={tmp}/fine", "--models", "noisy", "--out", "{tmp}/o"],
        "no pairs in '{tmp}/fine' (1 files)",
    ),
    (
        "evaluate",
        ["--pairs", "noisy={tmp}/corpus/noisy", "--models", "noisy", "--out", "{tmp}/o"],
        "corpus 'noisy' has no clean photos to score by",
    ),
    (
        "evaluate",
        ["--pairs", "pairs={tmp}/corpus", "--models", "noisy", "--out", "{tmp}/corpus/o"],
        "--out '{tmp}/corpus/o' is inside the corpus '{tmp}/corpus'",
    ),
    (
        "retrain",
        ["--corpus", "sidd={tmp}", "--out", "{tmp}/o", "--schedule", "daily"],
        "'daily' is not a cron schedule",
    ),
    (
        "retrain",
        ["--corpus", "sidd={tmp}", "--out", "{tmp}/o", "--schedule", "0 0 30 2 *"],
        "is not a cron schedule with a future time",
    ),
]


@pytest.mark.parametrize(("name", "argv", "said"), BEFORE_RAY, ids=lambda value: str(value)[:40])
def test_bad_options(
    no_ray: None,
    name: str,
    argv: list[str],
    said: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "typo.yaml").write_text("experimnt: x\n")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "card.json").write_text("[]")
    (tmp_path / "list" / "run.json").write_text("[]")
    (tmp_path / "fine").mkdir()
    resumed = '{"data": "nowhere", "config": {"seed": 3}, "run_id": "1", '
    resumed += '"earlier_photos": ""}'
    (tmp_path / "fine" / "run.json").write_text(resumed)
    (tmp_path / "photo.png").write_bytes(write_photo(tmp_path))
    argv = [a.format(tmp=tmp_path) for a in argv]
    if "--mlflow" not in argv and name != "ingest":
        argv += ["--mlflow", str(write_tracking(tmp_path))]
    before = sorted(tmp_path.rglob("*"))
    done = run_here(name, argv, tmp_path)
    assert done.status == 2, done.err
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert said.format(tmp=tmp_path) in done.err
    made = {p.name for p in set(tmp_path.rglob("*")) - set(before)}
    assert made <= {"mlflow.db"}


def write_photo(folder: Path) -> bytes:
    return next((write_pairs(folder / "corpus", ["one"]) / "noisy").iterdir()).read_bytes()


def test_no_store_is_made_where_a_model_was_to_be_found(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(write_photo(tmp_path))
    (tmp_path / "mlflow.yaml").write_text("")
    argv = [tmp_path / "photo.png", "--out", tmp_path / "o", "--mlflow", tmp_path / "mlflow.yaml"]
    named = [*argv, "--model", "models:/degrain-denoiser@champion"]
    done = run_here("denoise", named, tmp_path)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "there are no models yet" in done.err
    assert run_here("denoise", argv, tmp_path).status == 0
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "127.0.0.1:{free}",
            "no Ray cluster answers at 127.0.0.1:{free}: .*refused; check RAY_ADDRESS",
        ),
        ("ray://127.0.0.1:{free}", "no Ray cluster answers at ray://127.0.0.1:{free}: "),
        ("foo", "cannot read RAY_ADDRESS 'foo': write HOST:PORT"),
        (
            "http://127.0.0.1:8265",
            "cannot read RAY_ADDRESS 'http://127.0.0.1:8265': write HOST:PORT",
        ),
        ("127.0.0.1:123456", "no Ray cluster answers at 127.0.0.1:123456: "),
    ],
)
def test_a_cluster_that_does_not_answer(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = str(free_ports(1)[0])
    monkeypatch.setenv("RAY_ADDRESS", address.format(free=free))
    with pytest.raises(UserError, match=said.replace("{free}", free)):
        cluster.start_ray()


def unequal(folder: Path) -> None:
    (folder / "clean" / "attic_0.png").write_bytes(
        next((write_pairs(folder.parent / "b", ["x"], 48) / "clean").iterdir()).read_bytes()
    )


def truncated(folder: Path) -> None:
    photo = folder / "noisy" / "bench_0.png"
    photo.write_bytes(photo.read_bytes()[:700])


def emptied(folder: Path) -> None:
    for photo in folder.rglob("*.png"):
        photo.unlink()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (unequal, [], "attic_0.png and its clean photo have unequal sizes, 64x64 and 48x48"),
        (truncated, [], "bench_0.png: it is damaged"),
        (
            truncated,
            ["--val-scenes", "bench", "--max-refused", "0.5"],
            "all 1 pairs of the val split were refused, the first",
        ),
        (emptied, [], "no pairs in '{corpus}' (0 files)"),
        (
            lambda _: None,
            ["--patch-size", "128"],
            "is 64x64, smaller than a patch of 128; lower --patch-size",
        ),
        (
            lambda _: None,
            ["--test-scenes", "zebra"],
            "there is no scene 'zebra'; scenes are attic, bench",
        ),
    ],
    ids=["unequal", "truncated", "split emptied", "empty", "large patch", "unknown scene"],
)
def test_a_corpus_that_cannot_be_used(
    ray_cluster: None,
    spoil,  # noqa: ANN001
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    spoil(corpus)
    argv = [
        "--corpus",
        f"pairs={corpus}",
        "--out",
        tmp_path / "out",
        "--patch-size",
        32,
        *TEMPLATES,
        *options,
    ]
    done = run_here("ingest", argv, tmp_path)
    assert done.status == 2, done.err
    assert len(done.err.splitlines()) == 1
    assert said.format(corpus=corpus) in done.err
    assert not list((tmp_path / "out").glob("*.json"))
    assert not list((tmp_path / "out").glob("*/manifest.json"))
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (unequal, "attic_0.png and its clean photo have unequal sizes, 64x64 and 48x48"),
        (truncated, "bench_0.png: it is damaged"),
    ],
)
def test_pairs_that_cannot_be_scored_end_an_evaluation(
    ray_cluster: None,
    spoil,  # noqa: ANN001
    said: str,
    tmp_path: Path,
) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    spoil(corpus)
    argv = ["--pairs", f"pairs={corpus}", "--out", tmp_path / "out", "--models", "noisy"]
    done = run_here("evaluate", [*argv, "--mlflow", write_tracking(tmp_path), *TEMPLATES], tmp_path)
    assert done.status == 2, done.err
    assert len(done.err.splitlines()) == 1
    assert "1 of 5 pairs cannot be scored, the first: " in done.err
    assert said in done.err
    assert done.err.endswith("name the others with --pairs pairs=TABLE.csv\n")
    assert not (tmp_path / "out").exists()
    assert kinds_of_runs(MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")) == set()


@pytest.mark.ray
def test_a_test_photo_that_changed_is_told_before_the_search(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    ingest = [
        "--corpus",
        f"pairs={corpus}",
        "--out",
        tmp_path / "out",
        "--patch-size",
        32,
        *TEMPLATES,
    ]
    run_here("ingest", [*ingest, "--test-scenes", "cliff"], tmp_path)
    (corpus / "noisy" / "cliff_0.png").write_bytes((corpus / "noisy" / "delta_0.png").read_bytes())
    options = ["--data", tmp_path / "out", "--mlflow", write_tracking(tmp_path), "--crop", 16]
    done = run_here("tune", options, tmp_path)
    assert done.status == 2, done.err
    assert (
        done.err == f"error: '{corpus}/noisy/cliff_0.png' has changed since its pair was checked; "
        "ingest the corpus again with `reread`\n"
    )
    assert "search" not in done.out


def kinds_of_runs(client) -> set[str]:  # noqa: ANN001
    experiment = client.get_experiment_by_name("degrain")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return {run.data.tags["degrain.kind"] for run in runs}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch set, made by the command."""
    folder = tmp_path_factory.mktemp("ingested")
    corpus = write_pairs(folder / "photos", SCENES)
    ingest = [
        "--corpus",
        f"pairs={corpus}",
        "--out",
        folder / "patches",
        "--patch-size",
        32,
        *TEMPLATES,
    ]
    made = start_pipeline("ingest", ingest, {"RAY_ADDRESS": ""})
    out, err = made.communicate(timeout=1200)
    assert made.returncode == 0, err
    assert err == ""
    assert "patch set" in out
    return folder / "patches"


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.parametrize(
    ("how", "name", "kind"),
    [
        pytest.param(signal.SIGINT, "tune", "trial", id="Ctrl-C of a study"),
        pytest.param(signal.SIGTERM, "train", "training", id="kill of a training"),
    ],
)
def test_as_a_command_and_interrupted(
    how: signal.Signals, name: str, kind: str, ingested: Path, tmp_path: Path
) -> None:
    """A real process: it ends with 130 and one line, its runs are marked, none of its processes
    stays.
    """
    import psutil

    tracking = write_tracking(tmp_path)
    env = {"RAY_ADDRESS": ""}
    options = [
        "--data",
        ingested,
        "--mlflow",
        tracking,
        "--out",
        tmp_path / "runs",
        "--steps",
        100_000,
    ]
    running = start_pipeline(name, [*options, "--batch-size", 2, "--crop", 16], env)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    deadline = time.monotonic() + 1200
    while kind not in kinds_of_runs(client) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert running.poll() is None, running.communicate()
    family = psutil.Process(running.pid).children(recursive=True)
    os.kill(running.pid, how)
    _, err = running.communicate(timeout=1200)
    assert running.returncode == 130, err[-2000:]
    # Beside it there may be a line of Ray's own threads, which lose what they were waiting for.
    assert "error: interrupted; what was finished is kept" in err.splitlines()
    _, alive = psutil.wait_procs(family, timeout=300)
    assert not alive
    assert kind in kinds_of_runs(client)
    runs = client.search_runs([client.get_experiment_by_name("degrain").experiment_id])
    assert {r.info.status for r in runs} == {"KILLED"}
