"""The two ways in which a job ends without having done its work."""


class UserError(ValueError):
    """Something the user gave is wrong; one line that says what, why and the remedy. Exit status 2."""


class JobFailedError(RuntimeError):
    """The input was right but the job could not finish; one line that says why. Exit status 1."""


def find_cause(error: BaseException) -> UserError | JobFailedError | None:
    """The `UserError` or `JobFailedError` at the bottom of an error that crossed process borders, if there is one.

    Ray wraps what a task or a worker raised: in `__cause__`, in `cause`, or in Ray Train's `worker_failures`.
    """
    seen: set[int] = set()
    pending: list[BaseException] = [error]
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        # What Ray makes of a task's error has the error's class too, but a traceback for its text: look inside first.
        inside = getattr(current, "cause", None)
        if isinstance(current, UserError | JobFailedError) and not isinstance(inside, BaseException):
            return current
        nested = [current.__cause__, current.__context__, inside]
        nested.extend(getattr(current, "worker_failures", {}).values())
        nested.extend(getattr(current, name, None) for name in ("training_failed_error", "controller_failure"))
        pending.extend(e for e in nested if isinstance(e, BaseException))
    return None
