"""Who may speak to the broker: we, and nobody who has no password for it."""

import ipaddress
import socket
import ssl
from contextlib import closing

import structlog
from redis.exceptions import AuthenticationError
from sqlalchemy import make_url

from producer.queue import BrokerErrors, Queue
from schemas.broker import FORM, anonymous, broker_name
from schemas.errors import SetupError

OPEN = "{name} asks for no password, and listens beyond this machine: set requirepass or an ACL, and close its port"


def warn_of_open_broker(url: str) -> None:
    """A loud line in the log where anyone may write to the queue. Raises SetupError where the broker refuses us."""
    if warning := examine_broker(url):
        structlog.get_logger().warning(warning)


def examine_broker(url: str) -> str | None:
    """What is to be said of a broker that takes anyone; None for one that does not, or that does not answer now.

    Raises SetupError for a password or a certificate that is refused: waiting does not help.
    """
    name = broker_name(url)
    try:
        _ask(url)
    except BrokerErrors as error:
        if told := _refusal(error):
            raise SetupError(f"{name} {told}") from None
        return None
    return OPEN.format(name=name) if _is_remote(url) and _takes_anyone(url) else None


def _ask(url: str) -> None:
    with closing(Queue(url, "")) as queue:
        queue.length("kosmograph")


def _refusal(error: BaseException) -> str | None:
    """What cannot be cured by waiting, in words without secrets."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(one, AuthenticationError) for one in causes):
        return f"refuses the user or the password: check KOSMOGRAPH_BROKER, which is of the form {FORM}"
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
        return "shows a certificate that is not trusted: add ?ssl_ca_certs=FILE to its URL, or check its name"
    return None


def _is_remote(url: str) -> bool:
    """Whether its address is one that other machines may reach."""
    host = make_url(url).host
    if not host:  # a socket of the file system
        return False
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return True
    return not all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)


def _takes_anyone(url: str) -> bool:
    """Whether it answers somebody who gives neither user nor password."""
    try:
        _ask(anonymous(make_url(url)).render_as_string())
    except BrokerErrors:
        return False
    return True
