"""The record of a retraining that has not ended, from which the next one goes on.

It is a small JSON file beside the studies, one for each model, folder of patch sets and corpora. A
retraining that is killed leaves it, and one that ends removes it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from degrain.errors import UserError
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location

MOST_FAILURES = 3
"""Times that a study may fail by itself before a new one begins."""


@dataclass(frozen=True)
class RetrainingRecord:
    """A retraining between the publication of its patch set and its end."""

    patch_set: str
    """URI of the patch set."""
    study: str
    """Name of the study."""
    run_id: str
    """Id of the retraining's run in MLflow."""
    options: Mapping[str, Any]
    """The study's options."""
    since: str | None
    """Version of the patch set relative to which pairs are new; None if there was none."""
    new_pairs: int
    """Number of pairs that were new or changed."""
    failures: int = 0
    """How often the study has failed by itself."""

    def write(self, file: Location) -> None:
        """Write the file."""
        file.write_bytes(json_bytes(asdict(self)))


def read_record(file: Location) -> RetrainingRecord | None:
    """The record of an interrupted retraining; None if there is none.

    Raises UserError if the file is damaged.
    """
    if not file.exists():
        return None
    try:
        return RetrainingRecord(**json.loads(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"cannot go on with the interrupted retraining: '{file}' is damaged ({error}); delete "
            "it to begin a new one"
        ) from None
