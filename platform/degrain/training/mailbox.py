"""How a training run's workers and its driver talk: what is measured goes one way, requests the other.

The mailbox is an actor on the driver's node, so that it lives as long as the run can, whichever nodes go away.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from degrain.errors import JobFailedError, UserError


@dataclass(frozen=True)
class Progress:
    """What was measured between validations."""

    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Validated:
    """A validation, and a picture of sample crops, PNG."""

    metrics: Mapping[str, float]
    samples: bytes


@dataclass(frozen=True)
class Began:
    """A group of workers begins, at a step that is above zero where it goes on from a checkpoint."""

    step: int
    workers: int


@dataclass(frozen=True)
class Rescued:
    """A checkpoint was written because the workers had to go."""

    step: int


@dataclass(frozen=True)
class Warned:
    """Something went wrong that did not end the run."""

    text: str


Letter: TypeAlias = Progress | Validated | Began | Rescued | Warned


class _Box:
    """The actor."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[Letter] = asyncio.Queue()
        self._wanted = False
        self._failure: tuple[str, str] | None = None

    async def put(self, letter: Letter) -> None:
        await self._letters.put(letter)

    async def take(self, seconds: float) -> list[Letter]:
        """All that has arrived; waits so long for the first."""
        found: list[Letter] = []
        if self._letters.empty() and seconds > 0:
            with contextlib.suppress(TimeoutError):
                found.append(await asyncio.wait_for(self._letters.get(), seconds))
        while not self._letters.empty():
            found.append(self._letters.get_nowait())
        return found

    async def want_rescue(self) -> None:
        self._wanted = True

    async def rescue_wanted(self) -> bool:
        wanted, self._wanted = self._wanted, False
        return wanted

    async def fail(self, kind: str, text: str) -> None:
        self._failure = self._failure or (kind, text)

    async def failure(self) -> tuple[str, str] | None:
        return self._failure


class Mailbox:
    """A handle on the actor, which travels to workers."""

    def __init__(self, box: Any) -> None:  # noqa: ANN401 - an actor's handle
        self._box = box
        self._taking: ray.ObjectRef | None = None

    @classmethod
    def open(cls) -> "Mailbox":
        """Start the actor, on this node."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return cls(ray.remote(_Box).options(num_cpus=0, scheduling_strategy=here).remote())

    def put(self, letter: Letter) -> None:
        """Send a letter to the driver, without waiting."""
        self._box.put.remote(letter)

    def take(self, seconds: float) -> list[Letter]:
        """All letters that have arrived; waits so long for the first."""
        # One that Ctrl-C broke off still goes on in the actor, and has the letters that come first.
        self._taking = self._taking or self._box.take.remote(seconds)
        letters: list[Letter] = ray.get(self._taking)
        self._taking = None
        return letters

    def want_rescue(self) -> None:
        """Ask the workers to write a checkpoint now."""
        ray.get(self._box.want_rescue.remote())

    def rescue_wanted(self) -> bool:
        """Whether the driver asked for a checkpoint since this was last asked."""
        return bool(ray.get(self._box.rescue_wanted.remote()))

    def fail(self, error: UserError | JobFailedError) -> None:
        """Note an error that would come again: a group of workers that starts anew must not repeat it."""
        kind = "user" if isinstance(error, UserError) else "job"
        ray.get(self._box.fail.remote(kind, str(error)))

    def failure(self) -> UserError | JobFailedError | None:
        """The error that was noted, if one was."""
        noted = ray.get(self._box.failure.remote())
        if noted is None:
            return None
        kind, text = noted
        return UserError(text) if kind == "user" else JobFailedError(text)

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._box)
