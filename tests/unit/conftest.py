"""Fixtures of the unit tests."""

from pathlib import Path

import pytest
from hypothesis import settings

from degrain.storage.location import Location, Storage

# On a busy machine an example may take any time.
settings.register_profile("degrain", deadline=None)
settings.load_profile("degrain")


@pytest.fixture
def root(tmp_path: Path) -> Location:
    """A folder for patch sets."""
    return Storage().locate(tmp_path / "set")
