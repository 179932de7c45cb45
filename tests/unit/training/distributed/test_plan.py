"""The plan of a resumed run."""

import json
from pathlib import Path

import pytest
from unit.training_support import CONFIG, CPU

from degrain.registry.resolver import Resolver
from degrain.storage.location import Location, Storage
from degrain.training.checkpoint import take_snapshot
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.distributed.plan import PLAN_FILE, resumed_plan
from degrain.training.step import TrainingState

STARTED = TrainingConfig(model="fast24", start="starter", steps=4)


@pytest.fixture
def out(tmp_path: Path) -> Location:
    (tmp_path / "run").mkdir()
    described = {
        "data": "/patches",
        "config": STARTED.to_dict(),
        "run_id": "0",
        "earlier_photos": None,
    }
    (tmp_path / "run" / PLAN_FILE).write_text(json.dumps(described))
    return Storage().locate(tmp_path)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a damaged checkpoint"])
def test_a_run_without_a_checkpoint_starts_from_its_model_again(out: Location, left: str) -> None:
    folder = Path((out / "run" / "checkpoints").path)
    if left != "nothing":
        folder.mkdir()
    if left == "a damaged checkpoint":
        (folder / "step-00000002.psnr-30.0000.pt").write_bytes(b"degrain checkpoint 1 ")
    plan = resumed_plan(out, "run", "/patches", STARTED, Resolver(None, Storage()))
    assert plan.start is not None
    assert plan.start.card.model == "fast24"


def test_a_run_with_a_checkpoint_needs_no_model(out: Location) -> None:
    store = CheckpointStore(out / "run" / "checkpoints", warn=pytest.fail)
    store.save(take_snapshot(TrainingState.create(CONFIG, CPU)))
    store.flush()
    assert resumed_plan(out, "run", "/patches", STARTED, Resolver(None, Storage())).start is None
