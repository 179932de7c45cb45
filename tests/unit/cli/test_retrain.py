"""What `degrain retrain` prints and refuses."""

from pathlib import Path

import pytest

from degrain.cli.console import Console
from degrain.cli.retrain import Retrain, describe
from degrain.errors import UserError
from degrain.patchsets.ingest.config import IngestConfig
from degrain.retraining.result import RetrainingResult


@pytest.mark.parametrize(
    ("champion", "expected"),
    [
        ("3", "kept: no better; the champion is version 3"),
        (None, "kept: no better; there is no champion"),
    ],
)
def test_outcome_names_the_champion_if_there_is_one(champion: str | None, expected: str) -> None:
    assert describe(RetrainingResult("kept", "no better", champion, "4")) == expected


def test_schedule_with_summary_is_refused(tmp_path: Path) -> None:
    command = Retrain(
        ingest=IngestConfig(corpus=[f"sidd={tmp_path}"], out=str(tmp_path / "patches")),
        schedule="0 3 * * 1",
        summary=tmp_path / "summary.json",
    )
    with pytest.raises(UserError, match="`summary` is for one retraining"):
        command.run(Console())
    assert list(tmp_path.iterdir()) == []
