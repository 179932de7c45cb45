"""The state of a study, from which it is resumed: a small JSON file in its folder.

It is written atomically after each event, so that a killed driver loses nothing that MLflow has.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from degrain.errors import UserError
from degrain.storage.json_file import json_bytes, json_line
from degrain.storage.location import Location
from degrain.tuning.config import FittedStudy
from degrain.tuning.trial import ENDED, Trial

STATE_FILE = "study.json"


@dataclass
class StudyState:
    """A study's options and what has happened."""

    folder: Location
    config: FittedStudy
    data: str
    """URI of the patch set."""
    run_id: str
    """Id of its run in MLflow."""
    attempts: int = 1
    """How often it was started or resumed."""
    trials: dict[int, Trial] = field(default_factory=dict)
    refits: dict[str, str] = field(default_factory=dict)
    """Ids of the refits' runs in MLflow, by name."""
    holders: dict[str, str] | None = None
    """Versions that held aliases before the study moved any, by alias; None before its end."""

    _ended: dict[int, str] = field(default_factory=dict, repr=False, compare=False)
    """The ended trials as JSON, by number, because encoding a thousand takes a second."""

    def record(self, trial: Trial) -> None:
        """Store the state of a trial."""
        self.trials[trial.number] = trial
        self._ended.pop(trial.number, None)
        self.write()

    def record_refit(self, name: str, run_id: str) -> None:
        """Store the run of a refit."""
        self.refits[name] = run_id
        self.write()

    def record_holders(self, holders: Mapping[str, str]) -> None:
        """Store which versions hold aliases, before the study moves any."""
        self.holders = dict(holders)
        self.write()

    def in_order(self) -> Sequence[Trial]:
        """The trials by number."""
        return [self.trials[number] for number in sorted(self.trials)]

    def write(self) -> None:
        """Write the file."""
        content = {
            "config": self.config.to_dict(),
            "data": self.data,
            "run_id": self.run_id,
            "attempts": self.attempts,
            "refits": self.refits,
            "holders": self.holders,
        }
        trials = ",\n".join(self._line(trial) for trial in self.in_order())
        others = json_bytes(content).decode().rstrip().removesuffix("}").rstrip()
        text = f'{others},\n "trials": [\n{trials}\n ]\n}}\n'
        (self.folder / STATE_FILE).write_bytes(text.encode())

    def _line(self, trial: Trial) -> str:
        if trial.status not in ENDED:
            return json_line(trial.to_state())
        if trial.number not in self._ended:
            self._ended[trial.number] = json_line(trial.to_state())
        return self._ended[trial.number]


def new_name() -> str:
    """Return a name for a new study, by the time."""
    # A random suffix, because studies that share a folder start within one second.
    return time.strftime(f"study-%Y%m%d-%H%M%S-{secrets.token_hex(2)}")


def read_state(studies: Location, name: str) -> StudyState:
    """Read the state of the study `name` below `studies`.

    Raises UserError if the study does not exist or its file is damaged.
    """
    file = studies / name / STATE_FILE
    if "/" in name or not file.exists():
        raise UserError(f"study '{name}' does not exist in '{studies}'; check `resume` and `out`")
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        trials = [Trial.from_state(state) for state in content["trials"]]
        return StudyState(
            studies / name,
            FittedStudy.from_dict(content["config"]),
            content["data"],
            content["run_id"],
            content["attempts"],
            {trial.number: trial for trial in trials},
            content["refits"],
            content["holders"],
        )
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot resume '{name}': '{file}' is damaged ({error}); start a new study"
        ) from None
