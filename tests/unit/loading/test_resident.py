"""How large the windows of a streamed split are."""

from pathlib import Path

import pytest
from unit.ingest_support import serial_ingest, write_pairs

from degrain.loading import resident
from degrain.loading.resident import window_megabytes


@pytest.mark.parametrize(
    ("store", "window"),
    [
        (10**12, 1024),
        (400 * 10**6, 100),
        # No smaller than the largest shard, which is told when the split is opened.
        (10, 1),
    ],
)
def test_windows_are_as_large_as_the_store_has_room_for(
    store: int, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_set = serial_ingest(write_pairs(tmp_path / "photos"), tmp_path / "out").patch_set
    monkeypatch.setattr(resident, "_store_bytes", lambda: store)
    assert window_megabytes(patch_set, "train") == window
