"""The resources of trials' workers, which Ray may keep when a trial's process has ended.

Ray Train reserves them by a placement group that outlives everything, and frees those of a process
that has ended only where a dashboard runs. So the driver of a study keeps a list and frees them.
"""

from collections import defaultdict
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group


class _List:
    """The actor: placement groups by trial."""

    def __init__(self) -> None:
        self._groups: dict[int, list[PlacementGroup]] = defaultdict(list)

    def add(self, trial: int, group: PlacementGroup) -> None:
        self._groups[trial].append(group)

    def take(self, trial: int | None) -> list[PlacementGroup]:
        trials = list(self._groups) if trial is None else [trial]
        return [group for number in trials for group in self._groups.pop(number, [])]


class WorkerGroups:
    """A handle on the list; trials receive a copy."""

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 - an actor's handle
        self._actor = actor

    @classmethod
    def open(cls) -> "WorkerGroups":
        """Start the actor, which ends with this process."""
        return cls(ray.remote(_List).options(num_cpus=0).remote())

    def add(self, trial: int, group: PlacementGroup) -> None:
        """List the placement group of a trial's workers."""
        ray.get(self._actor.add.remote(trial, group))

    def free(self, trial: int | None = None) -> None:
        """End the workers that a trial has left and free their resources; None: those of all."""
        for group in ray.get(self._actor.take.remote(trial)):
            remove_placement_group(group)

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)
