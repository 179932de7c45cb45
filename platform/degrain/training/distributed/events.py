"""Events from a run's workers to its driver, and the driver's requests to the workers.

The queue is an actor on the driver's node, so that it survives the loss of every other node.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from degrain.errors import JobFailedError, UserError

_ABORT_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """Metrics measured between validations."""

    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ValidationEvent:
    """A validation's metrics, and a PNG of sample crops."""

    metrics: Mapping[str, float]
    samples: bytes


@dataclass(frozen=True)
class Started:
    """A group of workers started; `step` is above zero where it resumed from a checkpoint."""

    step: int
    workers: int


@dataclass(frozen=True)
class Planned:
    """The number of steps that fit into the budget, from their measured rate."""

    steps: int


@dataclass(frozen=True)
class PreemptionCheckpoint:
    """A checkpoint was written because the workers are about to end."""

    step: int


@dataclass(frozen=True)
class WarningEvent:
    """A problem that did not end the run."""

    text: str


WorkerEvent: TypeAlias = (
    Progress | ValidationEvent | Started | Planned | PreemptionCheckpoint | WarningEvent
)


class _EventQueue:
    """The actor: a queue of events, a requested checkpoint, and the first error."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[WorkerEvent] = asyncio.Queue()
        self._requested = False
        self._failure: UserError | JobFailedError | None = None
        self._controller: Any = None

    async def put(self, event: WorkerEvent) -> None:
        await self._events.put(event)

    async def take(self, seconds: float) -> list[WorkerEvent]:
        """Return all events that arrived; waits up to `seconds` for the first."""
        found: list[WorkerEvent] = []
        if self._events.empty() and seconds > 0:
            with contextlib.suppress(TimeoutError):
                found.append(await asyncio.wait_for(self._events.get(), seconds))
        while not self._events.empty():
            found.append(self._events.get_nowait())
        return found

    async def request_checkpoint(self) -> None:
        self._requested = True

    async def checkpoint_requested(self) -> bool:
        requested, self._requested = self._requested, False
        return requested

    async def introduce(self, controller: Any) -> None:  # noqa: ANN401 - an actor's handle
        self._controller = controller

    async def controller(self) -> Any:  # noqa: ANN401 - an actor's handle
        return self._controller

    async def fail(self, error: UserError | JobFailedError) -> None:
        self._failure = self._failure or error

    async def failure(self) -> UserError | JobFailedError | None:
        return self._failure


class EventChannel:
    """A handle on the event queue; workers receive a copy."""

    def __init__(self, queue: Any) -> None:  # noqa: ANN401 - an actor's handle
        self._queue = queue
        self._taking: ray.ObjectRef | None = None

    @classmethod
    def open(cls) -> "EventChannel":
        """Start the actor on this node."""
        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = ray.remote(_EventQueue).options(num_cpus=0, scheduling_strategy=here)
        return cls(actor.remote())

    def put(self, event: WorkerEvent) -> None:
        """Send an event to the driver, without waiting."""
        self._queue.put.remote(event)

    def take(self, seconds: float) -> list[WorkerEvent]:
        """Return all events that arrived; waits up to `seconds` for the first."""
        # A call that Ctrl-C interrupted continues in the actor and returns the first events.
        self._taking = self._taking or self._queue.take.remote(seconds)
        events: list[WorkerEvent] = ray.get(self._taking)
        self._taking = None
        return events

    def request_checkpoint(self) -> None:
        """Request that the workers write a checkpoint now."""
        ray.get(self._queue.request_checkpoint.remote())

    def checkpoint_requested(self) -> bool:
        """Whether a checkpoint was requested since the last call."""
        return bool(ray.get(self._queue.checkpoint_requested.remote()))

    def fail(self, error: UserError | JobFailedError) -> None:
        """Record an error that a retry would repeat, so that a restarted group ends at once."""
        ray.get(self._queue.fail.remote(error.with_traceback(None)))

    def failure(self) -> UserError | JobFailedError | None:
        """Return the recorded error, or None."""
        error: UserError | JobFailedError | None = ray.get(self._queue.failure.remote())
        return error

    def introduce(self, controller: Any) -> None:  # noqa: ANN401 - an actor's handle
        """Store Ray's controller of the training."""
        ray.get(self._queue.introduce.remote(controller))

    def abort_training(self) -> None:
        """End the workers and free their resources, if they have any yet."""
        with contextlib.suppress(ray.exceptions.RayError):
            controller = ray.get(self._queue.controller.remote(), timeout=_ABORT_SECONDS)
            if controller is not None:
                ray.get(controller.abort.remote(), timeout=_ABORT_SECONDS)

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._queue)
