"""The one way to the platform: a request with the bearer token, and an answer of bounded size in bounded time.

Invariant: the token goes to the configured host alone, and never unencrypted over a network. No redirect is followed: it would
carry the token along, or turn a POST into a GET. Messages never contain the token.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, NoReturn, Optional

from .errors import ConfigurationError, NetworkError

USER_AGENT = "agent-sentinel-python/0.1"

# More than this is no answer of the platform's.
MOST_ANSWER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What the platform said, whatever its status."""

    status: int
    body: bytes
    location: Optional[str] = None

    def text(self) -> str:
        """For a human: the beginning of it."""
        return self.body[:2000].decode("utf-8", "replace")

    def json(self) -> Any:
        """What it says, where it says it in JSON.

        Raises `NetworkError` where it doesn't. NaN and Infinity are no JSON, and would slip through every comparison.
        """
        try:
            return json.loads(self.body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise NetworkError(f"the platform's answer is no json: {error}", status_code=self.status) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is no json")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


class Platform:
    """A platform's address and the token for it."""

    def __init__(self, platform_url: str, api_token: str, allow_http: bool = False) -> None:
        self.url = checked_url(platform_url, allow_http)
        self._token = _checked_token(api_token)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if _is_loopback(urllib.parse.urlsplit(self.url).hostname or ""):
            # A proxy from the environment would be another host.
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str, query: Mapping[str, str], timeout: float) -> Answer:
        """Asks. Raises `NetworkError` where there is no answer."""
        return self._send("GET", f"{path}?{urllib.parse.urlencode(query)}", None, timeout)

    def post(self, path: str, content: object, timeout: float) -> Answer:
        """Tells. Raises `NetworkError` where there is no answer."""
        body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")
        return self._send("POST", path, body, timeout)

    def _send(self, method: str, path: str, body: Optional[bytes], timeout: float) -> Answer:
        request = urllib.request.Request(self.url + path, data=body, method=method)
        request.add_header("User-Agent", USER_AGENT)
        request.add_header("Accept", "application/json")
        # Unredirected: even if a handler did follow, it would go without.
        request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        deadline = time.monotonic() + timeout
        try:
            with self._opener.open(request, timeout=timeout) as response:
                return Answer(response.status, _read(response, deadline))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _read(error, deadline), error.headers.get("Location"))
        except urllib.error.URLError as error:
            raise _unreached(self.url, error.reason) from error
        except (OSError, http.client.HTTPException, ssl.SSLError, ValueError) as error:
            raise _unreached(self.url, error) from error


def _read(response: Any, deadline: float) -> bytes:
    """The body, if it comes in time and is no longer than an answer may be."""
    read = bytearray()
    try:
        while chunk := response.read1(64 * 1024):
            read += chunk
            if len(read) > MOST_ANSWER_BYTES:
                raise NetworkError(f"the platform's answer is longer than {MOST_ANSWER_BYTES} bytes", recoverable=False)
            if time.monotonic() > deadline:
                raise NetworkError("the platform's answer did not come in time", recoverable=True)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NetworkError(f"the platform's answer broke off: {error}", recoverable=True) from error
    return bytes(read)


def _unreached(url: str, cause: object) -> NetworkError:
    return NetworkError(f"the platform `{url}` can't be reached: {cause}", recoverable=True)


def checked_url(platform_url: str, allow_http: bool = False) -> str:
    """The platform's address without a slash at its end, if the token may be sent there.

    Raises `ConfigurationError` where it may not.
    """
    try:
        parts = urllib.parse.urlsplit(platform_url)
        host, _port = parts.hostname, parts.port
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"`{platform_url}` is no address of a platform: {error}") from error
    is_plain = not any(character.isspace() or not character.isprintable() for character in platform_url)
    if parts.scheme not in ("https", "http") or not host or not is_plain:
        raise ConfigurationError(f"`{platform_url}` is no address of a platform; write it as `https://host`")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError("the platform's address has a user, a query or a fragment; give the host and the path alone")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"`{platform_url}` would send the token unencrypted; use `https://`, or say `allow_http=True`"
        )
    return platform_url.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_token(api_token: str) -> str:
    if not isinstance(api_token, str) or not api_token:
        raise ConfigurationError("the platform's token is empty; give the one that the platform made")
    if any(not "!" <= character <= "~" for character in api_token):
        raise ConfigurationError("the platform's token has characters that no header can carry; is there a line break in it?")
    return api_token
