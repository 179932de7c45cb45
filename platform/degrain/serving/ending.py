"""The end of the service: no new photos, a time for those in work, and 503 for what is left."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from degrain.serving.middleware import refuse

REFUSED = "the service ends; send the photo again later"
_HEADERS = {"Retry-After": "10", "Connection": "close"}


class Ending:
    """Whether the service ends, and the requests that are then in work."""

    def __init__(self) -> None:
        self.begun = False
        self._limits: set[asyncio.Timeout] = set()

        self._when: float | None = None

    def begin(self, seconds: float) -> None:
        """Refuse new photos from now on, and those in work after `seconds`."""
        self.begun = True
        self._when = asyncio.get_running_loop().time() + seconds
        for limit in self._limits:
            limit.reschedule(self._when)

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Raises TimeoutError when the time of the end is over."""
        async with asyncio.timeout_at(self._when) as limit:
            self._limits.add(limit)
            try:
                await app(scope, receive, send)
            finally:
                self._limits.discard(limit)


class EndingMiddleware:
    """Answers photos with 503 once the service ends, and if they are not finished in time."""

    def __init__(self, app: ASGIApp, ending: Ending) -> None:
        self._app, self._ending = app, ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        app = _discard if self._ending.begun else self._app
        try:
            await self._ending.run(app, scope, receive, send_and_note)
        except TimeoutError:
            if has_begun or not self._ending.begun:
                raise
        if not has_begun:
            await refuse(send, 503, REFUSED, _HEADERS)


async def _discard(_scope: Scope, receive: Receive, _send: Send) -> None:
    """Read a body: many clients look at the answer only after they have sent all of it."""
    while (await receive()).get("more_body"):
        pass
