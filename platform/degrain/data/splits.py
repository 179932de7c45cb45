"""Splits: each scene trains, validates or tests, and stays where it is.

A scene goes where the user says, else where its corpus says, else where it was before, else where it is needed: each
corpus gives a tenth of its scenes, and at least one, to `test` and to `val`. They are chosen one by one, each time the
scene that brings the cameras of the split nearest to those of the corpus; among equals the hash of the scene's name
decides. Scenes of the previous patch set count and are not moved, so that adding photos never moves a scene.
"""

import hashlib
import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence

from degrain.data.corpora import Pair
from degrain.errors import UserError

SPLITS = ("train", "val", "test")
HELD_OUT_SHARE = 0.1
"""Share of each corpus' scenes that goes to `val`, and again to `test`."""
_FEWEST = 3
"""A corpus of fewer scenes gives none away, unless it is the only one."""


def assign_splits(
    pairs: Sequence[Pair],
    *,
    previous: Mapping[str, str] | None = None,
    val_scenes: Sequence[str] = (),
    test_scenes: Sequence[str] = (),
) -> dict[str, str]:
    """The split of each scene. A split for which the user named scenes has these and no others.

    Raises UserError for a named scene that is not there, or where a split stays empty.
    """
    cameras: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        cameras[pair.scene][pair.camera or ""] += 1
    named = _named(sorted(cameras), val_scenes, test_scenes)
    closed = set(named.values())
    settled = {p.scene: p.split for p in pairs if p.split}
    before = {scene: split for scene, split in (previous or {}).items() if scene in cameras}
    splits: dict[str, str] = {}
    for scene, split in {**before, **settled}.items():
        splits[scene] = "train" if split in closed else split
    splits |= named

    corpora: dict[str, list[str]] = defaultdict(list)
    for scene in cameras:
        corpora[scene.partition("/")[0]].append(scene)
    for scenes in corpora.values():
        for split in ("test", "val"):
            if split not in closed and (len(scenes) >= _FEWEST or len(corpora) == 1):
                _fill(split, scenes, cameras, splits)
    for split in ("test", "val"):
        if split not in closed and split not in splits.values():
            # Corpora too small to give a scene each have enough together.
            _fill(split, list(cameras), cameras, splits)
    for scene in cameras:
        splits.setdefault(scene, "train")
    _give_train_a_scene(splits, fixed={*named, *settled, *before})
    if absent := [s for s in SPLITS if s not in splits.values()]:
        raise UserError(
            f"no scene is left for the {absent[0]} split: the corpus has {len(splits)} scenes "
            f"({_some(sorted(s.split('/', 1)[1] for s in splits))}); at least 3 are needed, "
            "or name others with --val-scenes and --test-scenes"
        )
    return splits


def scene_rank(scene: str) -> int:
    """A number that depends on the scene's name alone."""
    return int.from_bytes(hashlib.blake2b(scene.encode(), digest_size=8).digest())


def _named(scenes: Sequence[str], val_scenes: Sequence[str], test_scenes: Sequence[str]) -> dict[str, str]:
    """The scenes that the user named, by their full names."""
    if both := set(val_scenes) & set(test_scenes):
        raise UserError(f"scene '{min(both)}' is named for both val and test; name it once")
    if not val_scenes and not test_scenes:
        return {}
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
                raise UserError(f"scene '{name}' is in several corpora; write one of {', '.join(by_name[name])}")
            named[by_name[name][0]] = split
    return named


def _fill(split: str, scenes: Sequence[str], cameras: Mapping[str, Counter[str]], splits: dict[str, str]) -> None:
    """Give `split` its share of a corpus' scenes, out of those that have no split yet."""
    wanted = max(1, round(HELD_OUT_SHARE * len(scenes))) - sum(splits.get(s) == split for s in scenes)
    total, have = Counter[str](), Counter[str]()
    # Scenes with the same photos per camera are alike; of these the hash decides.
    alike: dict[tuple[tuple[str, int], ...], deque[str]] = defaultdict(deque)
    for scene in sorted(scenes, key=scene_rank):
        total.update(cameras[scene])
        if scene not in splits:
            alike[tuple(sorted(cameras[scene].items()))].append(scene)
        elif splits[scene] == split:
            have.update(cameras[scene])

    def distance(kind: tuple[tuple[str, int], ...]) -> tuple[float, int]:
        """How much farther the split's cameras would be from their share; only those of the scene change."""
        target = {camera: HELD_OUT_SHARE * total[camera] for camera, _ in kind}
        farther = sum(abs(have[c] + n - target[c]) - abs(have[c] - target[c]) for c, n in kind)
        return round(farther, 6), scene_rank(alike[kind][0])

    # A split only grows, and with it every distance: what was the nearest kind before is looked at first.
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


def _give_train_a_scene(splits: dict[str, str], fixed: set[str]) -> None:
    """With a handful of scenes `val` and `test` may have taken all."""
    counts = Counter(splits.values())
    movable = sorted((s for s in splits if s not in fixed and counts[splits[s]] > 1), key=scene_rank)
    if not counts["train"] and movable:
        splits[movable[0]] = "train"


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
