"""Every error of Kosmograph, in one tree.

    KosmographError                     told to people in one line, exit code 1
    ├── UsageError                      the command was called wrongly, exit code 2
    ├── SetupError                      something outside is missing or broken; the message says the remedy
    │   ├── SourceError                 a source of images cannot be listed
    │   └── EngineBroken                the model fails on every image: the worker's fault, never an image's
    │       └── DeviceLost              the GPU is lost to this process; another process may have it
    ├── Drift                           a worker's model says other things than it did: the job pauses, nobody is blamed
    ├── EngineClosed                    the engine ended before the request was done: it may be submitted elsewhere
    └── ImageFailure                    one image failed; the job goes on
        ├── PermanentFailure            recorded now
        └── TransientFailure            tried again later, recorded when the tries are used up

Whether a failure is transient or permanent is decided where it is raised.
"""

from enum import StrEnum

TRY_AGAIN = 75
"""The exit code of a service that another may replace with better luck (EX_TEMPFAIL of sysexits.h): the GPU is lost to
this process, or the database is away before it has begun."""


class Code(StrEnum):
    """Why an image has no annotation. Public: stored in `failures.code`."""

    NOT_FOUND = "not_found"
    ACCESS_DENIED = "access_denied"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    DECODER_CRASHED = "decoder_crashed"
    CRASHED_WORKER = "crashed_worker"
    BAD_INPUT = "bad_input"
    MODEL_ERROR = "model_error"
    INTERNAL = "internal"


SOURCE_FAULTS = frozenset({Code.NOT_FOUND, Code.ACCESS_DENIED, Code.STORAGE_UNAVAILABLE})
"""Codes that, in numbers, are the source's fault and not an image's: they trip the breaker."""

CONTENT_CODES = frozenset(
    {
        Code.EMPTY_FILE,
        Code.NOT_AN_IMAGE,
        Code.UNSUPPORTED_FORMAT,
        Code.TRUNCATED,
        Code.TOO_LARGE,
        Code.DECODER_CRASHED,
    }
)
"""Codes of what was read, and is no picture that we can use: the source does its part. The others say nothing of it."""


class KosmographError(Exception):
    """An error whose text is one line for a person, with the remedy."""


class UsageError(KosmographError):
    """The command was called wrongly."""


class SetupError(KosmographError):
    """Something outside of Kosmograph is missing or broken."""


class DatabaseAway(SetupError):
    """The database cannot be reached now. It may be later."""


class SourceError(SetupError):
    """A source of images cannot be listed."""


class EngineBroken(SetupError):
    """The model fails on every image: the worker's fault, never an image's."""


class DeviceLost(EngineBroken):
    """The GPU is lost to this process, and to nobody else: another process may have it."""


class Drift(KosmographError):
    """A worker's model says other things of the canaries than the recipe's first worker heard: the job pauses."""


class EngineClosed(KosmographError):
    """The engine ended before this request was done: it may be submitted elsewhere."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or ("the engine was closed before this image was done",)))


class ImageFailure(KosmographError):
    """One image failed with a code. `version` is the version that was read, or "" where nothing was."""

    def __init__(self, code: Code, message: str, version: str = "") -> None:
        super().__init__(code, message, version)  # args as given, so that it can be pickled
        self.code = code
        self.message = message
        self.version = version

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class PermanentFailure(ImageFailure):
    """Trying again would give the same: recorded now."""


class TransientFailure(ImageFailure):
    """The next attempt may succeed."""
