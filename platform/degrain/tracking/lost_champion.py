"""The champion that was, where the registry has none any more."""

import logging

from mlflow import MlflowClient

from degrain.tracking.client import store_errors
from degrain.tracking.config import TrackingConfig

_log = logging.getLogger(__name__)


def lost_champion(client: MlflowClient, config: TrackingConfig) -> str | None:
    """Describe the last champion, if no version has the alias; None if there never was one.

    MLflow deletes the aliases of a version with it, so the last decision is looked up.
    """
    with store_errors():
        experiment = client.get_experiment_by_name(config.experiment)
        runs = experiment and client.search_runs(
            [experiment.experiment_id],
            filter_string="tags.`degrain.kind` = 'promotion' and "
            f"tags.`degrain.model` = '{config.model}' and tags.`degrain.champion` != 'none'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
    if not runs:
        return None
    return (
        f"the champion was {config.model} v{runs[0].data.tags['degrain.champion']}, which was "
        "deleted or lost the alias; make another version the champion with `degrain promote`"
    )


def warn_of_lost_champion(client: MlflowClient | None, config: TrackingConfig) -> None:
    """Log what `lost_champion` finds; without a client there is no store."""
    if client is not None and (lost := lost_champion(client, config)):
        _log.warning("%s", lost)
