"""Images on the web, from public servers only: whoever writes a manifest must not be able to reach ours through it.

A name is resolved once; each of its addresses must be public; the connection goes to just that address, and TLS checks
the certificate for the name. Redirects are followed by hand, each under the same rules. No proxy of the environment is
asked, and no password is sent.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urljoin

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, Timeout
from urllib3 import exceptions as errors

from schemas.errors import Code, ImageFailure, PermanentFailure, TransientFailure
from schemas.uris import MOST_ETAG, has_secrets
from worker.fetch import Fetched, check_bytes, late
from worker.images import Limits

MOST_REDIRECTS = 5
CONNECT_TIMEOUT_S = 5.0
BLOCK_BYTES = 1 << 16
MOST_DIGITS = 20  # of a length
MOST_POOLS = 32
SCHEME_PORTS = {"http": 80, "https": 443}
PORTS = (80, 443, 8080, 8443)
"""Those of web servers: through any other, a URL could speak to servers of another kind."""
HEADERS = {"User-Agent": "kosmograph", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}

NAT64 = ipaddress.ip_network("64:ff9b::/96")
NOT_PUBLIC = (
    "168.63.129.16/32",  # public by number, and a cloud's own on its machines; the other clouds' are not public
    "192.0.0.0/24",
    "192.88.99.0/24",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001:db8::/32",
    "5f00::/16",
    "fec0::/10",
)
"""What Python counts among the global addresses in some of its versions, or because it is not routed at all."""
BARRED = tuple(map(ipaddress.ip_network, NOT_PUBLIC))
ISATAP = (0x00005EFE, 0x02005EFE)

_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?([/?][^#]*)?(?:#.*)?", re.DOTALL)
_NUMBER = re.compile(r"(?i)\d+|0x[0-9a-f]*")

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True)
class Target:
    """Where a request goes."""

    scheme: str
    host: str
    port: int
    path: str


class WebReader:
    """Reads http(s) URLs; keeps connections to the addresses that were allowed."""

    def __init__(
        self,
        limits: Limits,
        *,
        resolve: Resolve | None = None,
        permits: Callable[[Address], bool] | None = None,
        ports: Collection[int] = PORTS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """The rules stand here and not in the settings, so that only a test can have others."""
        self._limits = limits
        self._resolve = resolve or addresses_of
        self._permits = permits or is_public
        self._ports = ports
        self._tls = tls or ssl.create_default_context()
        self._pool = lru_cache(MOST_POOLS)(self._new_pool)

    def read(self, url: str) -> Fetched:
        """The bytes and the ETag, else the date. Raises PermanentFailure or TransientFailure."""
        if has_secrets(url):
            text = "a URL with a password or a signature is not read: it is stored and shown; name the s3:// object"
            raise PermanentFailure(Code.ACCESS_DENIED, text)
        deadline = time.monotonic() + self._limits.fetch_timeout_s
        with web_failures(self._limits.fetch_timeout_s):
            return self._follow(url, deadline)

    def _follow(self, url: str, deadline: float) -> Fetched:
        for _ in range(MOST_REDIRECTS + 1):
            target = target_of(url, self._ports)
            answer = self._ask(target, deadline)
            try:
                if answer.status not in (301, 302, 303, 307, 308):
                    return self._take(answer, deadline)
                url = urljoin(url, answer.headers.get("Location", ""))
                if target.scheme == "https" and url.startswith("http:"):
                    raise PermanentFailure(Code.ACCESS_DENIED, "the server redirects from https to http")
            finally:
                answer.close()  # half read, the connection is of no more use; whole, it is back in its pool already
        raise PermanentFailure(Code.ACCESS_DENIED, f"the server redirects more than {MOST_REDIRECTS} times")

    def _ask(self, target: Target, deadline: float) -> HTTPResponse:
        """The answer of the first address that takes a connection. All must be allowed: else the name is a trap."""
        addresses = self._resolve(target.host, target.port)
        if not addresses or not all(self._permits(ipaddress.ip_address(one)) for one in addresses):
            text = "the server's address is not a public one: private, loopback and link-local ones are never asked"
            raise PermanentFailure(Code.ACCESS_DENIED, text)
        for number, address in enumerate(addresses, start=1):
            try:
                return self._get(target, address, deadline)
            except (errors.NewConnectionError, errors.ConnectTimeoutError):
                if number == len(addresses):
                    raise
        raise AssertionError("unreachable")

    def _get(self, target: Target, address: str, deadline: float) -> HTTPResponse:
        left = deadline - time.monotonic()
        if left <= 0:
            raise late(self._limits.fetch_timeout_s)
        usual = target.port == SCHEME_PORTS[target.scheme]
        return self._pool(target.scheme, address, target.port, target.host).urlopen(  # type: ignore[return-value]
            "GET",
            target.path,
            headers=HEADERS | {"Host": target.host if usual else f"{target.host}:{target.port}"},
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
            timeout=Timeout(connect=min(CONNECT_TIMEOUT_S, left), read=left),
        )

    def _new_pool(self, scheme: str, address: str, port: int, host: str) -> HTTPConnectionPool:
        if scheme == "http":
            return HTTPConnectionPool(address, port)
        # `ssl` itself checks the name: urllib3 would, where it is told `assert_hostname`, with an error of its own
        return HTTPSConnectionPool(
            address, port, ssl_context=self._tls, server_hostname=host.strip("[]"), cert_reqs="CERT_REQUIRED"
        )

    def _take(self, answer: HTTPResponse, deadline: float) -> Fetched:
        if answer.status != 200:
            raise refusal(answer.status)
        version = version_in(answer)
        try:
            length = answer.headers.get("Content-Length", "")
            check_bytes(int(length) if length.isdecimal() and len(length) <= MOST_DIGITS else 0, self._limits)
            blocks, total = [], 0
            while block := answer.read1(BLOCK_BYTES):  # what is here: the deadline holds for a server that drips
                blocks.append(block)
                total += len(block)
                check_bytes(total, self._limits)
                if time.monotonic() > deadline:
                    raise late(self._limits.fetch_timeout_s)
        except ImageFailure as failure:
            failure.version = version
            raise
        return Fetched(b"".join(blocks), version)


def target_of(url: str, ports: Collection[int]) -> Target:
    """The parts of a URL, read strictly: what could be read in two ways is refused."""
    found = _URL.fullmatch(url)
    if found is None:
        raise PermanentFailure(Code.ACCESS_DENIED, "not a plain http(s) URL: https://HOST/PATH is needed")
    scheme, host, port_text, path = found.groups()
    port = int(port_text or SCHEME_PORTS[scheme])
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:  # 127.1, 0x7f000001, 0177.0.0.1: C libraries take them for addresses
            raise PermanentFailure(Code.ACCESS_DENIED, "an odd spelling of an address: write it as a.b.c.d") from None
    if port not in ports:
        allowed = ", ".join(map(str, PORTS))
        raise PermanentFailure(Code.ACCESS_DENIED, f"port {port} is not asked: a web server's is one of {allowed}")
    path = path or "/"
    # what is percent-encoded stays so; the rest is encoded, line ends too
    target = quote(path if path.startswith("/") else "/" + path, safe="/?:@!$&'()*+,;=%~[]-._", errors="surrogatepass")
    return Target(scheme, host.lower(), port, target)


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a name, each once. Raises PermanentFailure or TransientFailure."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise PermanentFailure(Code.NOT_FOUND, "there is no server of this name") from None
        raise TransientFailure(Code.STORAGE_UNAVAILABLE, "the server's name cannot be resolved now") from None
    except UnicodeError:
        raise PermanentFailure(Code.NOT_FOUND, "no server can have this name") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: Address) -> bool:
    """Whether anyone on the internet could ask there; of an address that holds another one, both must be so."""
    held: list[IPv4Address] = []
    if isinstance(address, IPv6Address):
        held = embedded_in(address)
        if address.ipv4_mapped is not None or address in NAT64:
            return all(map(is_public, held))
        if address.scope_id is not None:
            return False
    barred = address.is_multicast or any(address in network for network in BARRED)
    return address.is_global and not barred and all(map(is_public, held))


def embedded_in(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that a gateway would take out of it: mapped, NAT64, 6to4, Teredo, ISATAP."""
    number = int(address)
    held = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64 or number >> 32 & 0xFFFFFFFF in ISATAP:
        held.append(IPv4Address(number & 0xFFFFFFFF))
    return [one for one in held if one is not None]


def version_in(answer: HTTPResponse) -> str:
    """The ETag without its quotes, else the date of the last change, else nothing."""
    etag = answer.headers.get("ETag", "").removeprefix("W/").strip('"')
    text = etag or answer.headers.get("Last-Modified", "")
    return "".join(character for character in text if " " <= character <= "~")[:MOST_ETAG]


def refusal(status: int) -> ImageFailure:
    """The failure that an HTTP status stands for."""
    if status in (404, 410):
        return PermanentFailure(Code.NOT_FOUND, f"the server has no such page (HTTP {status})")
    if status == 429:
        return TransientFailure(Code.THROTTLED, "the server asks to slow down (HTTP 429)")
    if status == 408:
        return TransientFailure(Code.TIMEOUT, "the server gave the request up (HTTP 408)")
    if status >= 500:
        return TransientFailure(Code.STORAGE_UNAVAILABLE, f"the server has an error of its own (HTTP {status})")
    return PermanentFailure(Code.ACCESS_DENIED, f"the server does not give it to everyone (HTTP {status})")


@contextmanager
def web_failures(timeout_s: float) -> Iterator[None]:
    """Turns what urllib3 raises into the failure that it means. Its texts hold addresses: they are not repeated."""
    try:
        yield
    except (errors.TimeoutError, TimeoutError):
        raise late(timeout_s) from None
    except errors.SSLError as error:
        if isinstance(error.args[0] if error.args else None, ssl.SSLCertVerificationError):
            text = "the server's certificate is not valid for its name, or of an authority that is not known here"
            raise PermanentFailure(Code.ACCESS_DENIED, text) from None
        raise TransientFailure(Code.STORAGE_UNAVAILABLE, "no TLS connection to the server comes about") from None
    except (errors.HTTPError, OSError) as error:
        text = f"the server was not reached, or broke off ({type(error).__name__})"
        raise TransientFailure(Code.STORAGE_UNAVAILABLE, text) from None
