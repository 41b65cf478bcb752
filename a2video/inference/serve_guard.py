"""Whom the page answers: requests of its own pages to its own names, told and read within a bounded time."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # within which a connection has to send its request's headers
ANSWER_SECONDS = 60.0  # within which it has to take the answer
LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}
HEADERS = {  # of every answer that does not bring its own
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Refuses requests to foreign names (DNS rebinding) and of foreign pages, and adds HEADERS to every answer.

    Args:
        app: what answers the others.
        host: the address or name that the server was told to listen on; where it stands for all of the machine's
            addresses, any address and the machine's own name are the server's.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.takes_any_address = is_address(host) and ipaddress.ip_address(host).is_unspecified
        self.names = LOCAL_NAMES | {f"[{host}]" if ":" in host else host.lower()}
        if self.takes_any_address:
            own = socket.gethostname().lower()
            self.names |= {own, f"{own}.local", socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        headers = Headers(scope=scope)
        app = self.app
        if not self._is_own(headers.get("host", "")):
            app = JSONResponse({"error": "this server is not called that: use the address that it printed"}, 421)
        elif scope["method"] not in ("GET", "HEAD") and is_foreign(headers):
            app = JSONResponse({"error": "only the server's own page may ask for that"}, 403)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    given.setdefault(name, value)
            await send(message)

        await app(scope, receive, send_with_headers)

    def _is_own(self, host_and_port: str) -> bool:
        """Whether a Host header names this server; the port may be another, as of a tunnel."""
        host, colon, port = host_and_port.lower().rpartition(":")
        if not colon or not port.isdigit():
            host = host_and_port.lower()
        return host in self.names or (self.takes_any_address and is_address(host.strip("[]")))


def is_address(host: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_foreign(headers: Headers) -> bool:
    """Whether a browser says that another site's page has made the request; other programs say nothing."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return True
    return origin is not None and origin.partition("://")[2] != headers["host"]


class OneRequest(H11Protocol):
    """A connection that takes one request, and hangs up on those who neither ask nor listen."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.loop.call_later(HEADER_SECONDS, self._end_silence)

    def on_response_complete(self) -> None:
        """Gives the client time to read what has been written."""
        super().on_response_complete()
        self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def _end_silence(self) -> None:
        if self.cycle is None:  # no request has come
            self.transport.close()
