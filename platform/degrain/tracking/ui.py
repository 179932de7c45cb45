"""Addresses of pages of the MLflow UI.

MLflow 3.17 opens a page in the mode that the browser used last, at first that for language models;
`workflowType` selects the mode for model training.
"""

import json
from collections.abc import Sequence
from urllib.parse import quote

from mlflow import MlflowClient

_MODE = "workflowType=machine_learning"
_MOST_RUNS = 100
"""Runs that an address names at most, because browsers limit its length."""


def experiment_page(url: str, experiment_id: str) -> str:
    """The table of an experiment's runs."""
    return f"{url}/#/experiments/{experiment_id}/runs?{_MODE}"


def model_page(url: str, name: str) -> str:
    """The versions and aliases of a registered model."""
    return f"{url}/#/models/{quote(name, safe='')}?{_MODE}"


def comparison_page(url: str, experiment_id: str, runs: Sequence[str]) -> str:
    """The comparison of runs, which begins with parallel coordinates."""
    # The format is that of MLflow 3.17's button Compare; the page finds `runs` only if it is first.
    named, of = quote(json.dumps(list(runs))), quote(json.dumps([experiment_id]))
    return f"{url}/#/compare-runs?runs={named}&experiments={of}&{_MODE}"


def newest_study_runs(client: MlflowClient, experiment_id: str) -> list[str]:
    """The ids of the trials and refits of the newest study; empty if there is none."""
    studies = client.search_runs(
        [experiment_id],
        "tags.`degrain.kind` = 'study'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    if not studies:
        return []
    children = client.search_runs(
        [experiment_id],
        f"tags.`mlflow.parentRunId` = '{studies[0].info.run_id}' "
        "and tags.`degrain.kind` != 'promotion'",
        max_results=_MOST_RUNS,
        order_by=["attributes.start_time ASC"],
    )
    return [str(run.info.run_id) for run in children]
