"""The record of a retraining that has not ended, from which the next one goes on.

It is a small JSON file beside the studies. A retraining that is killed leaves it, and one that ends
removes it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from degrain.errors import UserError
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location

RECORD_FILE = "retraining.json"


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

    def write(self, studies: Location) -> None:
        """Write the file."""
        (studies / RECORD_FILE).write_bytes(json_bytes(asdict(self)))


def read_record(studies: Location) -> RetrainingRecord | None:
    """The record of an interrupted retraining; None if there is none.

    Raises UserError if the file is damaged.
    """
    file = studies / RECORD_FILE
    if not file.exists():
        return None
    try:
        return RetrainingRecord(**json.loads(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"cannot go on with the interrupted retraining: '{file}' is damaged ({error}); delete "
            "it to begin a new one"
        ) from None


def remove_record(studies: Location) -> None:
    """Remove the record of a retraining that has ended."""
    (studies / RECORD_FILE).remove()
