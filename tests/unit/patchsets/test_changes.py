"""A corpus that changes in any way: after each ingest the set is that of the present photos.

The oracle knows what each photo shows. `DEGRAIN_SEQUENCES` is the number of sequences of changes.
"""

import hashlib
import os
import shutil
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray
from PIL import Image
from unit.ingest_support import STORAGE, serial_ingest
from unit.support import with_noise

from degrain.corpora.config import CorpusOptions
from degrain.errors import UserError
from degrain.imaging.looks import pixel_digest
from degrain.patchsets import manifest as manifests
from degrain.patchsets.ingest.run import IngestResult
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.atomic import AtomicWrite

SIDE = 32
NAMES = st.sampled_from([f"n{number}" for number in range(8)])
ANY_SUFFIX = CorpusOptions(
    noisy_name=r"regex:noisy/(?P<scene>[^_]+)_(?P<name>\d)\.\w+",
    clean_name=r"regex:clean/(?P<scene>[^_]+)_(?P<name>\d)\.\w+",
)
TIME = 1_700_000_000


@dataclass(frozen=True)
class Shown:
    """What the pair of a name shows: a scene, in a version of its own."""

    scene: int
    take: int
    dark: bool = False
    suffix: str = "bmp"


class Changes(RuleBasedStateMachine):
    """A folder of pairs, and an ingest of it now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.photos, self.out = self.folder / "photos", self.folder / "out"
        self.pairs: dict[str, Shown] = {}
        """What is shown, by name."""
        self.scenes = self.takes = 0
        self.corpus = f"pairs={self.photos}"
        self.read: dict[str, str] = {}
        """A digest of what is read of each version."""
        self.tested: set[int] = set()
        """Scenes that were ever in the test split."""
        self.cutter = manifests.CUTTER_VERSION
        self.reread = False
        self.changes = 0

    def teardown(self) -> None:
        self.stack.close()

    # What happens to the photos

    @initialize(count=st.integers(4, 8))
    def begin(self, count: int) -> None:
        for number in range(count):
            self.add(f"n{number}")

    @rule(name=NAMES)
    def add(self, name: str) -> None:
        """A new scene, in place of what had the name."""
        self.scenes += 1
        self._put(name, Shown(self.scenes, self._take()))

    @rule(name=NAMES)
    def exchange_at_equal_size_and_time(self, name: str) -> None:
        if name in self.pairs and self.pairs[name].suffix == "bmp":
            times = [file.stat().st_mtime_ns for file in self._files(name)]
            self.scenes += 1
            self._put(name, Shown(self.scenes, self._take()))
            for file, time in zip(self._files(name), times, strict=True):
                os.utime(file, ns=(time, time))
            # Only this finds it, see docs/decisions/0003.
            self.reread = True

    @rule(one=NAMES, other=NAMES)
    def swap(self, one: str, other: str) -> None:
        if one != other and {one, other} <= self.pairs.keys():
            self.rename(one, "swap")
            self.rename(other, one)
            self.rename("swap", other)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if name in self.pairs:
            for file in self._files(name):
                file.unlink()
            del self.pairs[name]

    @rule(name=NAMES, new=NAMES)
    def rename(self, name: str, new: str) -> None:
        if name in self.pairs and new not in self.pairs:
            for file in self._files(name):
                file.rename(file.with_name(file.name.replace(f"{name}_", f"{new}_")))
            self.pairs[new] = self.pairs.pop(name)

    @rule(name=NAMES)
    def encode_again(self, name: str) -> None:
        if name in self.pairs:
            suffix = "png" if self.pairs[name].suffix == "bmp" else "bmp"
            self._put(name, replace(self.pairs[name], suffix=suffix))

    @rule(name=NAMES, new=NAMES, suffix=st.sampled_from(["bmp", "png"]))
    def duplicate(self, name: str, new: str, suffix: str) -> None:
        if name in self.pairs and name != new:
            self._put(new, replace(self.pairs[name], suffix=suffix))

    @rule(name=NAMES, new=NAMES)
    def copy_darker_with_other_noise(self, name: str, new: str) -> None:
        if name in self.pairs and name != new:
            self._put(new, replace(self.pairs[name], dark=True, take=self._take()))

    @rule(label=st.sampled_from(["pairs", "pairs:own"]), link=st.booleans())
    def spell_the_corpus(self, label: str, link: bool) -> None:
        path = self.photos
        if link:
            path = self.folder / "link"
            if not path.exists():
                path.symlink_to(self.photos)
        self.corpus = f"{label}={path}"

    @rule()
    def change_the_cutter(self) -> None:
        self.cutter += 1

    # Ingests

    @rule(writes=st.integers(1, 12))
    def kill(self, writes: int) -> None:
        """An ingest that is ended before one of its writes, and leaves the earlier set whole."""
        left = writes
        real = AtomicWrite.publish

        def publish(file: AtomicWrite, name: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            real(file, name)

        before = self._digest_of_newest()
        with patch.object(AtomicWrite, "publish", publish):
            try:
                self._ingest(self.out)
            except (KeyboardInterrupt, UserError):
                if before is not None:
                    assert self._digest_of_newest() == before
                return
        # It had fewer writes.
        self.ingest()

    @rule()
    def ingest(self) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            fresh_out = Path(temporary)
            if (self.out / "splits.parquet").exists():
                shutil.copy(self.out / "splits.parquet", fresh_out)
            try:
                done = self._ingest(self.out)
            except UserError:
                # Too few scenes, or all of a split are refused.
                return
            self.reread = False
            digest = digest_of(done.patch_set)
            version = done.patch_set.manifest.version
            assert self.read.setdefault(version, digest) == digest, "one id, two contents"
            fresh = self._ingest(fresh_out).patch_set
            if fresh.manifest.version == version:
                assert digest_of(fresh) == digest
            self._check_pixels(done.patch_set)
            self._check_splits(done.patch_set)

    @precondition(lambda self: (self.out / "current.json").exists())
    @rule()
    def forget_the_pointer(self) -> None:
        (self.out / "current.json").unlink()

    @invariant()
    def the_newest_set_is_whole(self) -> None:
        self._digest_of_newest()

    def _ingest(self, out: Path) -> IngestResult:
        with patch.object(manifests, "CUTTER_VERSION", self.cutter):
            return serial_ingest(
                self.corpus, out, options=ANY_SUFFIX, max_refused=0.9, reread=self.reread
            )

    def _digest_of_newest(self) -> str | None:
        if not (self.out / "current.json").exists():
            return None
        return digest_of(PatchSet.open(str(self.out), STORAGE))

    def _check_pixels(self, patch_set: PatchSet) -> None:
        """Each pair that is in the set has the pixels that its name shows now, and no other has."""
        noisy: set[str] = set()
        for row in patch_set.catalog:
            if row.refused is None:
                assert row.noisy_pixels not in noisy
                noisy.add(row.noisy_pixels)
                name = Path(row.noisy).name.split("_")[0]
                assert row.clean_pixels == pixel_digest(clean_photo(self.pairs[name]))

    def _check_splits(self, patch_set: PatchSet) -> None:
        splits: dict[int, set[str]] = defaultdict(set)
        for row in patch_set.catalog:
            if row.refused is None:
                splits[self.pairs[Path(row.noisy).name.split("_")[0]].scene].add(row.split)
        assert all(len(found) == 1 for found in splits.values()), splits
        assert not any("train" in splits.get(scene, ()) for scene in self.tested)
        self.tested |= {scene for scene, found in splits.items() if "test" in found}

    # Files

    def _take(self) -> int:
        self.takes += 1
        return self.takes

    def _files(self, name: str) -> list[Path]:
        suffix = self.pairs[name].suffix
        return [self.photos / kind / f"{name}_0.{suffix}" for kind in ("noisy", "clean")]

    def _put(self, name: str, shown: Shown) -> None:
        self.remove(name)
        self.pairs[name] = shown
        clean = clean_photo(shown)
        self.changes += 1
        for file, photo in zip(
            self._files(name), (with_noise(clean, shown.take), clean), strict=True
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(file)
            os.utime(file, (TIME + self.changes, TIME + self.changes))


def clean_photo(shown: Shown) -> NDArray[np.uint8]:
    """Blocks of random colours, which differ between scenes."""
    blocks = np.random.default_rng(shown.scene).integers(64, 192, (SIDE // 2, SIDE // 2, 3))
    photo = np.kron(blocks, np.ones((2, 2, 1))).astype(np.uint8)
    return photo // 2 if shown.dark else photo


def digest_of(patch_set: PatchSet) -> str:
    """A digest of all that a training reads, in order, and of the metadata of its pairs."""
    made = hashlib.sha256()
    for shard in patch_set.manifest.shards:
        made.update(shard.split.encode())
        for patches in patch_set.read_shard(shard):
            made.update(patches.tobytes())
    for row in patch_set.catalog:
        kept = (row.id, row.scene, row.split, row.patches, row.clean_pixels, row.refused is None)
        made.update(repr(kept).encode())
    return made.hexdigest()


class ManyChanges(Changes):
    """The same, for longer."""


def sequences(number: int) -> settings:
    return settings(
        max_examples=number,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


Changes.TestCase.settings = sequences(5)
TestChanges = Changes.TestCase
ManyChanges.TestCase.settings = sequences(int(os.environ.get("DEGRAIN_SEQUENCES", "50")))
TestManyChanges = pytest.mark.soak(ManyChanges.TestCase)
