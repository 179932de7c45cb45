"""Fixtures of the unit tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from degrain.storage.location import Location, Storage

# A call of Ray's without a running Ray starts one, or joins one of other tests, with whose end this
# process would end too.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

# On a busy machine an example may take any time.
settings.register_profile("degrain", deadline=None)
settings.load_profile("degrain")


@pytest.fixture
def root(tmp_path: Path) -> Location:
    """A folder for patch sets."""
    return Storage().locate(tmp_path / "set")
