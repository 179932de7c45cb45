"""Lines for the user, and a progress display."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

_PROGRESS_SECONDS = 15


def visible(text: str) -> str:
    """A text as one line: characters that move the cursor, as file names may have, as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class Console:
    """Prints lines, and shows progress: in place on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole

        self._rich = RichConsole(highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._last = 0.0
        self._shown = False
        """Whether a line of progress was printed, without a terminal."""

    def print(self, text: str = "") -> None:
        """Print a line."""
        if self._rich.is_terminal:
            self._rich.print(text, markup=False)
        else:
            print(text, flush=True)

    def progress(self, label: str, unit: str) -> Callable[[int, int], None]:
        """Return a function of (done, total) that shows the progress of `label`."""
        self._last = time.monotonic()
        self._shown = False

        def show(done: int, total: int) -> None:
            text = f"  {label}: {done}/{total} {unit}"
            if done < total:
                self.status(text)
                return
            self.end_status()
            if self._shown:
                # A log would end in the middle.
                self.print(text)

        return show

    def status(self, text: str) -> None:
        """Show a line that the next one replaces; without a terminal, print some of them."""
        if not self._rich.is_terminal:
            if time.monotonic() - self._last > _PROGRESS_SECONDS:
                self._last = time.monotonic()
                self._shown = True
                self.print(text)
            return
        from rich.markup import escape

        if self._status is None:
            self._status = self._rich.status("")
            self._status.start()
        self._status.update(escape(text.strip()))

    def end_status(self) -> None:
        """Remove the line that would be replaced."""
        if self._status is not None:
            self._status.stop()
            self._status = None
