"""Fixtures of the unit tests."""

from pathlib import Path

import pytest

from degrain.storage.location import Location, Storage


@pytest.fixture
def root(tmp_path: Path) -> Location:
    """A folder for patch sets."""
    return Storage().locate(tmp_path / "set")
