"""Who may speak to the broker: we, and nobody who has no password for it."""

import ipaddress
import socket
import ssl
from contextlib import suppress

import structlog
from kombu import Connection
from redis.exceptions import AuthenticationError
from sqlalchemy import make_url

from producer.queue import BrokerErrors
from schemas.broker import CELERY_SETTINGS, FORM, anonymous, broker_name
from schemas.errors import SetupError

OPEN = "{name} asks for no password, and listens beyond this machine: set requirepass or an ACL, and close its port"
AT_ONCE = CELERY_SETTINGS["broker_transport_options"] | {"max_retries": 0}


def warn_of_open_broker(url: str) -> None:
    """A loud line in the log where anyone may write to the queue. Raises SetupError where the broker refuses us."""
    with suppress(*BrokerErrors):  # one that is away is waited for
        if warning := examine_broker(url):
            structlog.get_logger().warning(warning)


def examine_broker(url: str) -> str | None:
    """What is to be said of a broker that answers, and takes anyone; None where it does not.

    Raises SetupError for a password or a certificate that is refused, since waiting does not help; one of BrokerErrors
    where it does not answer now.
    """
    name = broker_name(url)
    try:
        _ask(url)
    except BrokerErrors as error:
        if told := _refusal(error):
            raise SetupError(f"{name} {told}") from None
        raise
    return OPEN.format(name=name) if _takes_strangers(url) else None


def _ask(url: str) -> None:
    """Look at a queue as Celery would. Raises one of BrokerErrors."""
    with Connection(url, transport_options=AT_ONCE) as connection:
        connection.default_channel.client.llen("kosmograph")


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


def _takes_strangers(url: str) -> bool:
    """Whether it answers who comes from another machine, and gives neither user nor password."""
    stranger = anonymous(make_url(url))
    if not stranger.host:  # a socket of the file system
        return False
    if _is_loopback(stranger.host):
        if not (address := own_address()):
            return False
        stranger = stranger.set(host=address)
    try:
        _ask(stranger.render_as_string())
    except BrokerErrors:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)


def own_address() -> str:
    """The address of this machine that others know; "" for one that has no way to them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent, suppress(OSError):
        unsent.connect(("198.51.100.1", 9))  # an address for documentation: a way is chosen, nothing is sent
        return str(unsent.getsockname()[0])
    return ""
