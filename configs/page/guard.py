"""What stands between the network and the page: which host names are ours, which pages may ask, the token, headers.

- A request must name a host that is ours. Another site whose name is pointed at this machine (DNS rebinding) names its
  own host, and is refused.
- What changes something must come from our own page or from no page at all: `Origin` and `Sec-Fetch-Site` tell.
- Where the server listens beyond this machine, whoever asks for more than the page itself must know the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

COOKIE_NAME = "dp360"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of everything but the viewer."""
VIEWER_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; connect-src data: blob:; worker-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""Of the viewer, which runs in a frame of its own, cut off from the page: it can ask nobody for anything."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "SAMEORIGIN",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_SAFE_METHODS = ("GET", "HEAD")


@dataclass(frozen=True)
class Access:
    """Who may ask."""

    host: str
    """Where the server listens."""
    token: str | None = None
    """What has to be known; None asks nobody."""
    names: tuple[str, ...] = ()
    """Further names of this machine that may stand in a request."""
    own_names: tuple[str, ...] = field(default_factory=lambda: (socket.gethostname().lower(),))
    """Names that this machine has by itself; they count where the server listens beyond it."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask."""
        return is_loopback(self.host)

    def knows_host(self, given: str) -> bool:
        """Whether a request's `Host` is one of ours. Addresses always are: rebinding needs a name."""
        name = _name_in(f"//{given}")
        if name in ("localhost", *(known.lower() for known in self.names)):
            return True
        if _is_address(name):
            return is_loopback(name) or not self.is_local
        return not self.is_local and name in self.own_names

    def knows_token(self, given: str) -> bool:
        """Whether somebody knows the token; compared in constant time."""
        return self.token is None or hmac.compare_digest(given.encode(), self.token.encode())

    @property
    def cookie(self) -> str:
        """What a browser that knew the token is given."""
        return sha256(f"dp360 page {self.token}".encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _name_in(url: str) -> str:
    """The host of an address; empty where it is none."""
    try:
        return (urlsplit(url).hostname or "") if url.isprintable() else ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware with these rules."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse, or hand on and add headers to the answer."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        answer = self._app if refusal is None else JSONResponse({"detail": refusal[1]}, refusal[0])

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("content-security-policy", PAGE_POLICY)
            await send(message)

        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        """Status and sentence where a request is refused."""
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._access.knows_host(host):
            return 421, "This server does not go by that name; start it with --name to give it one"
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host.lower()}":
            return 403, "Requests of other sites are refused"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not (
            path == "/" and scope["method"] in _SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        ):
            return 403, "Requests of other sites are refused"
        if path.startswith("/api/") and path != "/api/session" and not self._is_known(headers):
            return 401, "This server asks for its token: open the address that it showed when it started"
        return None

    def _is_known(self, headers: Headers) -> bool:
        if self._access.token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._access.knows_token(given.strip()):
            return True
        cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        wanted = self._access.cookie
        return any(
            name == COOKIE_NAME and hmac.compare_digest(value.encode(), wanted.encode()) for name, _, value in cookies
        )
