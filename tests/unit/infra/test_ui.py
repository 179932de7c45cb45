"""Addresses of pages of the MLflow UI."""

from types import SimpleNamespace

import pytest

from degrain.tracking.ui import (
    comparison_page,
    experiment_page,
    model_page,
    newest_study_runs,
)

MODE = "workflowType=machine_learning"
URL = "http://127.0.0.1:5000"


def test_addresses_have_the_format_of_the_ui() -> None:
    assert experiment_page(URL, "1") == f"{URL}/#/experiments/1/runs?{MODE}"
    assert model_page(URL, "my model") == f"{URL}/#/models/my%20model?{MODE}"
    runs = "runs=%5B%22a%22%2C%20%22b%22%5D"
    assert (
        comparison_page(URL, "1", ["a", "b"])
        == f"{URL}/#/compare-runs?{runs}&experiments=%5B%221%22%5D&{MODE}"
    )


class Client:
    """Has one study with two children, or none."""

    def __init__(self, studies: int) -> None:
        self.studies = studies

    def search_runs(self, _: list[str], query: str, **__: object) -> list[SimpleNamespace]:
        of_a_study = "mlflow.parentRunId" in query
        names = ["trial", "refit"] if of_a_study else ["study"] * self.studies
        return [SimpleNamespace(info=SimpleNamespace(run_id=name)) for name in names]


@pytest.mark.parametrize(("studies", "runs"), [(0, []), (1, ["trial", "refit"])])
def test_the_newest_study_is_compared_by_its_children(studies: int, runs: list[str]) -> None:
    assert newest_study_runs(Client(studies), "1") == runs  # type: ignore[arg-type]
