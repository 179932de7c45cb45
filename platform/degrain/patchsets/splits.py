"""Splits: each scene belongs to train, val or test, and later ingests do not move it.

Scenes that show the same are one subject, whose scenes share a split. In order of precedence, the
user, the corpus and what is remembered of earlier ingests determine the split of a subject; if they
name several for its scenes, test comes before val, and val before train. Of each corpus a share of
the subjects, at least one, are in `test`, and as many in `val`; of nine and more subjects of all
corpora at least three, because fewer cannot tell a better model from a lucky one. Those that are
missing are chosen one by one, each time the one that makes the share of cameras in the split most
similar to that in the corpus. A hash of its name breaks ties. A camera that no earlier scene was
taken with gets its own share of held-out scenes, even if the splits of its corpus are large enough,
so that later models are also judged by it.
"""

import hashlib
import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.packed import columns

SPLITS = ("train", "val", "test")
HELD_OUT: Mapping[str, float] = {"val": 0.1, "test": 0.1}
"""Shares of each corpus' scenes that are held out, unless others are named."""
_ENOUGH, _LEAST_OF_ENOUGH = 9, 3
"""From so many scenes on each held-out split has at least so many."""
_FEWEST = 3
"""Of a corpus of fewer scenes all are in `train`, unless it is the only corpus."""


def assign_splits(
    pairs: Sequence[PairRecord],
    *,
    subjects: Mapping[str, str] | None = None,
    previous: Mapping[str, str] | None = None,
    val_scenes: Sequence[str] = (),
    test_scenes: Sequence[str] = (),
    shares: Mapping[str, float] = HELD_OUT,
) -> dict[str, str]:
    """The split of each scene. A split for which the user named scenes has these and no others.

    `shares` are those of `val` and `test`. `subjects` has the subject of each scene, which is one
    of its scenes; None: each is its own. `previous` has the splits that are remembered. Raises
    UserError for an unknown scene, for scenes of one subject that are named for two splits, or if a
    split stays empty.
    """
    scenes, settled = _scenes(pairs)
    subjects = subjects or {scene: scene for scene in scenes}
    cameras: dict[str, Counter[str]] = defaultdict(Counter)
    for scene, counts in scenes.items():
        cameras[subjects[scene]].update(counts)
    named = _named(subjects, val_scenes, test_scenes)
    closed = set(named.values())
    settled = _by_subject(settled, subjects)
    before = _by_subject(previous or {}, subjects)
    assigned = _assign(cameras, named, settled, before, closed, shares)
    return {scene: assigned[subject] for scene, subject in subjects.items()}


def _by_subject(splits: Mapping[str, str], subjects: Mapping[str, str]) -> dict[str, str]:
    """The split of each subject that is held out most."""
    found: dict[str, str] = {}
    for scene, split in splits.items():
        if scene in subjects:
            subject = subjects[scene]
            found[subject] = max(found.get(subject, split), split, key=SPLITS.index)
    return found


def _assign(
    cameras: Mapping[str, Counter[str]],
    named: Mapping[str, str],
    settled: Mapping[str, str],
    before: Mapping[str, str],
    closed: set[str],
    shares: Mapping[str, float],
) -> dict[str, str]:
    """The split of each subject; `cameras` has its photos per camera."""
    splits: dict[str, str] = {}
    for scene, split in {**before, **settled}.items():
        splits[scene] = "train" if split in closed else split
    splits |= named

    corpora: dict[str, list[str]] = defaultdict(list)
    for scene in cameras:
        corpora[scene.partition("/")[0]].append(scene)
    least = _LEAST_OF_ENOUGH if len(cameras) >= _ENOUGH else 1
    alone = len(corpora) == 1
    for scenes in corpora.values():
        for split in ("test", "val"):
            if split not in closed and (alone or len(scenes) >= _FEWEST):
                _fill(split, scenes, cameras, splits, shares[split], least if alone else 1)
    for split in ("test", "val"):
        if split not in closed and Counter(splits.values())[split] < least:
            # Corpora that are too small one by one may be large enough together.
            _fill(split, list(cameras), cameras, splits, shares[split], least)
    if before:
        _hold_out_new_cameras(cameras, splits, frozenset(before), closed, shares)
    splits |= {scene: "train" for scene in cameras if scene not in splits}
    _fill_train(splits, fixed={*named, *settled, *before})
    _check_no_split_is_empty(splits)
    return splits


def _scenes(pairs: Sequence[PairRecord]) -> tuple[dict[str, Counter[str]], dict[str, str]]:
    """Photos per camera of each scene, and the splits that the corpus prescribes."""
    cameras: dict[str, Counter[str]] = defaultdict(Counter)
    settled: dict[str, str] = {}
    for scene, camera, split in columns(pairs, "scene", "camera", "split"):
        cameras[scene][camera or ""] += 1
        if split and settled.setdefault(scene, split) != split:
            raise UserError(
                f"scene '{scene}' has the splits {settled[scene]} and {split}; give all its pairs "
                "one"
            )
    return cameras, settled


def _check_no_split_is_empty(splits: Mapping[str, str]) -> None:
    if absent := [s for s in SPLITS if s not in splits.values()]:
        raise UserError(
            f"no scene is left for the {absent[0]} split: the corpus has {len(splits)} scenes "
            f"({_some(sorted(s.split('/', 1)[1] for s in splits))}); at least 3 are needed, "
            "or name others with `val_scenes` and `test_scenes`"
        )


def scene_rank(scene: str) -> int:
    """A number that depends on the scene's name alone."""
    return int.from_bytes(hashlib.blake2b(scene.encode(), digest_size=8).digest())


def _named(
    subjects: Mapping[str, str], val_scenes: Sequence[str], test_scenes: Sequence[str]
) -> dict[str, str]:
    """The split of each subject of which the user named a scene."""
    if both := set(val_scenes) & set(test_scenes):
        raise UserError(f"scene '{min(both)}' is named for both val and test; name it once")
    if not val_scenes and not test_scenes:
        return {}
    scenes = sorted(subjects)
    by_name: dict[str, list[str]] = defaultdict(list)
    for scene in scenes:
        by_name[scene].append(scene)
        by_name[scene.split("/", 1)[1]].append(scene)
    named: dict[str, str] = {}
    for split, wanted in (("val", val_scenes), ("test", test_scenes)):
        for name in wanted:
            if name not in by_name:
                known = _some([s.split("/", 1)[1] for s in scenes])
                raise UserError(f"there is no scene '{name}'; scenes are {known}")
            if len(by_name[name]) > 1:
                raise UserError(
                    f"scene '{name}' is in several corpora; write one of {', '.join(by_name[name])}"
                )
            subject = subjects[by_name[name][0]]
            if named.setdefault(subject, split) != split:
                raise UserError(
                    f"scene '{name}' is named for test, but it shows what a scene of val shows; "
                    "name both for one split"
                )
    return named


def _fill(
    split: str,
    scenes: Sequence[str],
    cameras: Mapping[str, Counter[str]],
    splits: dict[str, str],
    share: float,
    least: int = 1,
) -> None:
    """Assign to `split` its share of the scenes, from those that have no split yet."""
    wanted = max(least, round(share * len(scenes))) - sum(splits.get(s) == split for s in scenes)
    total, have = Counter[str](), Counter[str]()
    # Scenes with the same number of photos per camera are equivalent; the hash orders them.
    alike: dict[tuple[tuple[str, int], ...], deque[str]] = defaultdict(deque)
    for scene in sorted(scenes, key=scene_rank):
        total.update(cameras[scene])
        if scene not in splits:
            alike[tuple(sorted(cameras[scene].items()))].append(scene)
        elif splits[scene] == split:
            have.update(cameras[scene])

    def distance(kind: tuple[tuple[str, int], ...]) -> tuple[float, int]:
        """Increase of the distance between the split's cameras and their share."""
        target = {camera: share * total[camera] for camera, _ in kind}
        farther = sum(abs(have[c] + n - target[c]) - abs(have[c] - target[c]) for c, n in kind)
        return round(farther, 6), scene_rank(alike[kind][0])

    # Distances never decrease, because a split only grows: a queue finds the nearest kind.
    queue = [(distance(kind), kind) for kind in alike]
    heapq.heapify(queue)
    while queue and wanted > 0:
        _, kind = heapq.heappop(queue)
        now = distance(kind), kind
        if queue and now > queue[0]:
            heapq.heappush(queue, now)
            continue
        scene = alike[kind].popleft()
        splits[scene] = split
        have.update(cameras[scene])
        wanted -= 1
        if alike[kind]:
            heapq.heappush(queue, (distance(kind), kind))


def _hold_out_new_cameras(
    cameras: Mapping[str, Counter[str]],
    splits: dict[str, str],
    before: frozenset[str],
    closed: set[str],
    shares: Mapping[str, float],
) -> None:
    """Assign to `test` and `val` the share of each camera, of at least _FEWEST scenes, that no
    scene of `before` was taken with.
    """
    by_camera: dict[str, list[str]] = defaultdict(list)
    for scene in sorted(cameras, key=scene_rank):
        for camera in cameras[scene]:
            if camera:
                by_camera[camera].append(scene)
    for camera in sorted(by_camera):
        scenes = by_camera[camera]
        if len(scenes) < _FEWEST or not before.isdisjoint(scenes):
            continue
        for split in ("test", "val"):
            if split not in closed and not any(splits.get(s) == split for s in scenes):
                wanted = max(1, round(shares[split] * len(scenes)))
                for scene in [s for s in scenes if s not in splits][:wanted]:
                    splits[scene] = split


def _fill_train(splits: dict[str, str], fixed: set[str]) -> None:
    """Move a scene to `train` if `val` and `test` have all of a handful of scenes."""
    counts = Counter(splits.values())
    movable = sorted(
        (s for s in splits if s not in fixed and counts[splits[s]] > 1), key=scene_rank
    )
    if not counts["train"] and movable:
        splits[movable[0]] = "train"


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
