"""ASGI middleware: the token, the host name, the headers that every answer has, and the count."""

import json
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from degrain import monitoring
from degrain.serving.config import is_loopback
from degrain.serving.tokens import is_authorized

PROTECTED = "/v1/"
"""Paths that need the token. The page has no secrets; health checks have no token."""
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """Refuses requests without the token.

    Without a token the service is for this machine alone, and a page of another site could reach it
    by a host name that resolves to 127.0.0.1 (DNS rebinding); so the host must be a loopback name.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        if (refusal := self._refusal(scope)) is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await refuse(send_with_headers, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str, Mapping[str, str]] | None:
        headers = Headers(scope=scope)
        if self._token is None:
            host = headers.get("host", "").rpartition("@")[2]
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if not is_loopback(name):
                return 421, "this service answers to 127.0.0.1 and localhost only", {}
        elif scope["path"].startswith(PROTECTED) and not is_authorized(
            headers.get("authorization"), self._token
        ):
            reason = "a token is missing or wrong; send `Authorization: Bearer TOKEN`"
            return 401, reason, {"WWW-Authenticate": 'Bearer realm="degrain"'}
        return None


async def refuse(send: Send, status: int, reason: str, more: Mapping[str, str]) -> None:
    """Answer with one line as JSON, and `more` headers."""
    body = json.dumps({"detail": reason}).encode()
    stated = {"Content-Type": "application/json", "Content-Length": str(len(body)), **more}
    headers = [(name.lower().encode(), value.encode()) for name, value in stated.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class HeadAsGet:
    """Answers HEAD as GET, without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)


class RequestCounter:
    """Counts the answers to photos by their status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                monitoring.record_request(message["status"])
            await send(message)

        counted = scope["type"] == "http" and scope["method"] == "POST"
        await self._app(scope, receive, send_and_count if counted else send)
