"""Whom a notice is told: an address of the web, or a command. Their words are never shown: they may hold a secret."""

import json
import os
import shlex
import shutil
import signal
import subprocess
from base64 import b64encode
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, ReadTimeoutError
from urllib3.exceptions import SSLError as UntrustedError
from urllib3.util import Timeout, parse_url

from schemas.environment import PREFIX, with_variables
from schemas.errors import UsageError

CONNECT_S, ANSWER_S = 5.0, 10.0
COMMAND_S = 60.0
AS_IT_IS: dict[str, Any] = {"retries": False, "redirect": False, "preload_content": False}
PASSING = {408, 425, 429}
"""Answers below 500 after which another try may do better."""


class Untold(Exception):
    """A target was not told, for a reason without secrets; `passing` if another try may do better."""

    def __init__(self, why: str, *, passing: bool) -> None:
        super().__init__(why)
        self.passing = passing


class Target(Protocol):
    """Whom a notice is told. `name` has no secrets."""

    name: str

    def tell(self, document: dict[str, Any]) -> None:
        """Raises Untold."""


def target_of(notify: str, db: str) -> Target:
    """The target that the setting `notify` means; a command is told `db`. Raises UsageError where it can be none."""
    if notify.lower().startswith(("http://", "https://")):
        return Webhook(notify)
    return Command(notify, db)


class Webhook:
    """An http(s) URL that JSON is posted to: the operator's own, so any address will do, and no redirect leads away."""

    def __init__(self, url: str) -> None:
        try:
            parsed = parse_url(url)
        except HTTPError:
            parsed = None
        if parsed is None or not parsed.host:
            raise UsageError("--notify: the URL is not of the form https://HOST/PATH")
        self.name = f"{parsed.scheme}://{parsed.host}/***"
        self._url = parsed._replace(auth=None, fragment=None).url
        self._headers = {"Content-Type": "application/json", "User-Agent": "kosmograph"}
        if parsed.auth:
            self._headers["Authorization"] = f"Basic {b64encode(unquote(parsed.auth).encode()).decode()}"
        self._pool = urllib3.PoolManager(timeout=Timeout(connect=CONNECT_S, read=ANSWER_S), cert_reqs="CERT_REQUIRED")

    def tell(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        try:
            answer = self._pool.request("POST", self._url, body=body, headers=self._headers, **AS_IT_IS)
            status = answer.status
            answer.close()
        except (HTTPError, OSError) as error:
            raise Untold(_said(error), passing=True) from None
        if 300 <= status < 400:
            raise Untold(f"it answers {status}: no redirect is followed, give the address itself", passing=False)
        if not 200 <= status < 300:
            raise Untold(f"it answers {status}", passing=status in PASSING or status >= 500)


class Command:
    """A command, run without a shell, with the JSON on its standard input. What it prints goes to standard error."""

    def __init__(self, line: str, db: str) -> None:
        try:
            self._words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"--notify: the command cannot be read: {str(error).lower()}") from None
        if not self._words or not shutil.which(self._words[0]):
            raise UsageError("--notify is neither an http(s) URL nor a command that is here; sh -c '…' runs a shell")
        self.name = os.path.basename(self._words[0])
        self._db = db

    def tell(self, document: dict[str, Any]) -> None:
        variables = {f"NOTICE_{name.upper()}": document[name] or "" for name in ("job", "state", "reason", "text")}
        environment = with_variables(variables | {f"{PREFIX}DB": self._db})
        try:
            process = subprocess.Popen(
                self._words, stdin=subprocess.PIPE, stdout=2, stderr=2, env=environment, start_new_session=True
            )
        except OSError as error:
            raise Untold(f"it cannot be run: {error.strerror}", passing=False) from None
        with process:
            try:
                process.communicate(json.dumps(document).encode(), timeout=COMMAND_S)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise Untold(f"it had not ended after {COMMAND_S:g} s", passing=True) from None
        if process.returncode:
            raise Untold(f"it ended with exit code {process.returncode}", passing=True)


def _said(error: Exception) -> str:
    """What went wrong, without the address, which urllib3 puts into its messages."""
    if isinstance(error, UntrustedError):
        return "its certificate is not trusted; SSL_CERT_FILE names other authorities"
    if isinstance(error, NameResolutionError):
        return "its name is not known"
    if isinstance(error, NewConnectionError | OSError):  # before the others: urllib3 has it for a kind of a timeout
        return "it cannot be reached"
    return "no answer in time" if isinstance(error, ConnectTimeoutError | ReadTimeoutError) else "the connection broke"
