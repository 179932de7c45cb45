"""The tags of MLflow's column Source."""

import pytest

from degrain.tracking.provenance import source_tags


@pytest.mark.parametrize(
    ("argv", "name", "command"),
    [
        (
            ["/a/bin/degrain", "tune", "--out", "a b/c"],
            "degrain tune",
            "degrain tune --out 'a b/c'",
        ),
        (["pipelines/tune.py", "--trials", "4"], "tune.py", "tune.py --trials 4"),
        (["/a/bin/degrain"], "degrain", "degrain"),
        (
            ["/a/bin/degrain", "retrain", "--notify", "https://hook/secret", "--models", "red10"],
            "degrain retrain",
            "degrain retrain --notify '***' --models red10",
        ),
        (
            ["/a/bin/degrain", "retrain", "--notify=https://hook/secret"],
            "degrain retrain",
            "degrain retrain '--notify=***'",
        ),
    ],
)
def test_the_source_is_the_command(
    argv: list[str], name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    tags = source_tags()
    assert (tags["mlflow.source.name"], tags["degrain.command"]) == (name, command)
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlflow.user"]


def test_a_ray_job_is_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert source_tags()["mlflow.source.type"] == "JOB"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert source_tags()["mlflow.user"].isdecimal()
