"""The two ways in which a job ends without having done its work."""

from typing import Any


class UserError(ValueError):
    """The user's input is wrong; one line that states what, why and the remedy. Exit status 2."""


class InvalidFieldError(UserError):
    """A field of a config has a value that cannot be used.

    `field` is its name and begins the message; the command line prints the option in its place.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the two arguments, because exceptions travel between Ray's processes."""
        return InvalidFieldError, (self.field, self.problem)


class NoModelError(UserError):
    """The registry has no such model."""


class JobFailedError(RuntimeError):
    """The input was right but the job could not finish; one line that states why. Exit status 1."""


class OutOfMemoryError(JobFailedError):
    """The memory of the GPU or of the machine did not suffice for a step."""


def find_cause(error: BaseException) -> UserError | JobFailedError | None:
    """Find the `UserError` or `JobFailedError` inside an error that crossed process borders.

    Ray wraps the exception of a task or worker: in `__cause__`, in `cause`, or in Ray Train's
    `worker_failures`.
    """
    seen: set[int] = set()
    pending: list[BaseException] = [error]
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        # Ray derives a class from the task's own, with a traceback for its text: look inside first.
        inside = getattr(current, "cause", None)
        if isinstance(current, UserError | JobFailedError) and not isinstance(
            inside, BaseException
        ):
            return current
        nested = [current.__cause__, current.__context__, inside]
        nested.extend(getattr(current, "worker_failures", {}).values())
        nested.extend(
            getattr(current, name, None) for name in ("training_failed_error", "controller_failure")
        )
        pending.extend(e for e in nested if isinstance(e, BaseException))
    return None
