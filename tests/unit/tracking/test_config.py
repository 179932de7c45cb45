"""`mlflow.yaml`: defaults, paths, and errors that name the key."""

import re
from pathlib import Path

import pytest
from documented import ROOT

from degrain.errors import UserError
from degrain.tracking.config import BASELINES, PromotionRules, TrackingConfig, load_tracking_config


@pytest.fixture(autouse=True)
def _no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def load(folder: Path, text: str) -> TrackingConfig:
    file = folder / "mlflow.yaml"
    file.write_text(text)
    return load_tracking_config(file)


def defaults_in(folder: Path) -> TrackingConfig:
    return TrackingConfig(
        tracking_uri=f"sqlite:///{folder}/mlflow.db", artifacts=f"{folder}/mlartifacts"
    )


def test_the_mlflow_yaml_of_the_repository_has_the_default_values() -> None:
    assert load_tracking_config(ROOT / "mlflow.yaml") == defaults_in(ROOT)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "{}"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == defaults_in(tmp_path)


def test_every_key_is_read(tmp_path: Path) -> None:
    text = """
tracking_uri: http://server:5000
artifacts: s3://bucket/artifacts
experiment: e
model: m
champion: ssim
promotion:
  must_beat: [nlm]
  min_psnr_improvement_db: 1
  min_ssim_improvement: 0.01
"""
    config = load(tmp_path, text)
    assert config == TrackingConfig(
        tracking_uri="http://server:5000",
        artifacts="s3://bucket/artifacts",
        experiment="e",
        model="m",
        champion="ssim",
        promotion=PromotionRules(
            must_beat=("nlm",), min_psnr_improvement_db=1.0, min_ssim_improvement=0.01
        ),
    )
    assert isinstance(config.promotion.min_psnr_improvement_db, float)
    assert not config.embedded


def test_missing_keys_keep_their_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "promotion: {min_ssim_improvement: 0.5}")
    assert config.promotion == PromotionRules(
        must_beat=BASELINES, min_psnr_improvement_db=0, min_ssim_improvement=0.5
    )
    assert config.model == TrackingConfig().model


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "experimnt: e",
            "unknown key 'experimnt'; did you mean 'experiment'? Known keys: tracking_uri, "
            "artifacts",
        ),
        ("zzz: 1", "unknown key 'zzz'. Known keys: tracking_uri"),
        ("5: 1", "unknown key '5'. Known keys"),
        (
            "promotion: {min_psnr_improvement: 1}",
            "unknown key 'promotion.min_psnr_improvement'; did you mean "
            "'promotion.min_psnr_improvement_db'?",
        ),
        (
            "promotion: {zzz: 1}",
            "unknown key 'promotion.zzz'. Known keys: must_beat, beat_starter, confidence",
        ),
        ("promotion: {confidence: 1.0}", "promotion.confidence must be below 1, got 1.0"),
        ("promotion: {approval: 1}", "promotion.approval must be true or false, got 1"),
        (
            "promotion: {min_psnr_improvement_db: .inf}",
            "promotion.min_psnr_improvement_db must be a number that is not negative, got inf",
        ),
        ("model: 5", "model must be text, got 5"),
        ("model: [a]", "model must be text, got ['a']"),
        ("model:", "model must be text, got None"),
        ("model: ''", "model must not be empty"),
        ("champion: lpips", "champion must be psnr or ssim, got 'lpips'"),
        ("promotion: nlm", "promotion must be a mapping of keys to values"),
        ("promotion: {must_beat: nlm}", "promotion.must_beat must be a list of names, got 'nlm'"),
        ("promotion: {must_beat: [1]}", "promotion.must_beat must be a list of names, got [1]"),
        (
            "promotion: {must_beat: [nlm, 'models:/m/1']}",
            "must_beat: 'models:/m/1' is a model, and the champion is to be beaten anyway; name",
        ),
        (
            "promotion: {min_psnr_improvement_db: '1'}",
            "promotion.min_psnr_improvement_db must be a number, got '1'",
        ),
        (
            "promotion: {min_psnr_improvement_db: true}",
            "promotion.min_psnr_improvement_db must be a number, got True",
        ),
        (
            "promotion: {min_ssim_improvement: -0.1}",
            "promotion.min_ssim_improvement must be a number that is not",
        ),
        ("- a\n- b", "the file must be a mapping of keys to values"),
        ("text", "the file must be a mapping of keys to values"),
    ],
)
def test_an_unknown_key_or_wrong_value_is_rejected_with_the_key(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'mlflow.yaml'}: {message}")):
        load(tmp_path, text)


@pytest.mark.parametrize("text", ["model: [", "model: a: b", "\tmodel: a", "model: a\nmodel: b"])
def test_invalid_yaml_is_reported_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        UserError, match=re.escape(f"'{tmp_path / 'mlflow.yaml'}' is not valid YAML: ")
    ) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_binary_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "mlflow.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_tracking_config(tmp_path / "mlflow.yaml")


def test_a_missing_file_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=f"'{tmp_path}/none.yaml' does not exist; leave `mlflow` out, or name an",
    ):
        load_tracking_config(tmp_path / "none.yaml")


def test_the_environment_overrides_the_tracking_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    config = load(tmp_path, "tracking_uri: sqlite:///mine.db\nmodel: m")
    assert config.tracking_uri == "http://elsewhere:5000"
    assert config.model == "m"
    assert not config.embedded
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert (
        load(tmp_path, "tracking_uri: sqlite:///mine.db").tracking_uri
        == f"sqlite:///{tmp_path}/mine.db"
    )


def test_relative_paths_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mlflow.yaml").write_text(
        "tracking_uri: sqlite:///db/runs.db\nartifacts: files"
    )
    monkeypatch.chdir(tmp_path)
    config = load_tracking_config(Path("conf/mlflow.yaml"))
    assert config.tracking_uri == f"sqlite:///{tmp_path}/conf/db/runs.db"
    assert config.artifacts == f"{tmp_path}/conf/files"
    assert config.embedded


def test_absolute_paths_are_unchanged(tmp_path: Path) -> None:
    config = load(tmp_path, "tracking_uri: sqlite:////var/runs.db\nartifacts: /var/artifacts")
    assert (config.tracking_uri, config.artifacts) == ("sqlite:////var/runs.db", "/var/artifacts")


def test_the_address_of_a_server_is_no_file() -> None:
    with pytest.raises(UserError, match="address of a server; set MLFLOW_TRACKING_URI"):
        load_tracking_config(Path("http://127.0.0.1:5000"))
