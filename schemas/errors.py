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
from typing import NamedTuple

TRY_AGAIN = 75
"""The exit code of a service that another may replace with better luck (EX_TEMPFAIL of sysexits.h): the GPU is lost to
this process, or the database is away before it has begun."""
BEING_PRUNED = "it is being pruned; kosmograph prune goes on with it"
"""The reason of a cancelled job that `prune` has begun to take away. No other cancelled job has a reason."""


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


class About(NamedTuple):
    """What a code means to the person whose image it is, whether it is tried again by itself, and what to do."""

    meaning: str
    again: str
    remedy: str


NEVER, LATER = "no", "yes"
ABOUT = {
    Code.NOT_FOUND: About(
        "There is no such file, object, bucket or page.", NEVER, "Correct the list, the bucket's name or the mount."
    ),
    Code.ACCESS_DENIED: About(
        "It may not be read: credentials, an archived object, a file outside the job's folders, or the web is off.",
        NEVER,
        "The message says which: renew credentials, restore the object, or give `--root` or `--allow-http`.",
    ),
    Code.STORAGE_UNAVAILABLE: About(
        "The storage did not do its part: no connection, a server's error, or a file that changed while it was read.",
        LATER,
        "See to the network or the storage, then `retry`.",
    ),
    Code.THROTTLED: About("The storage asks to slow down.", LATER, "Fewer workers, or more prefixes; then `retry`."),
    Code.TIMEOUT: About(
        "It took too long to fetch, or to decode.",
        "a fetch yes, decoding no",
        "Raise `KOSMOGRAPH_FETCH_TIMEOUT_S` or `KOSMOGRAPH_DECODE_TIMEOUT_S`, then `retry`.",
    ),
    Code.EMPTY_FILE: About("It has no bytes.", NEVER, "Upload it again; a new version is tried by itself."),
    Code.NOT_AN_IMAGE: About("Its bytes are no picture's.", NEVER, "Leave it out, with `--exclude`."),
    Code.UNSUPPORTED_FORMAT: About("A kind of picture that is not read.", NEVER, "Convert it to JPEG or PNG."),
    Code.TRUNCATED: About("The picture is damaged or cut short.", NEVER, "Upload it again."),
    Code.TOO_LARGE: About(
        "More bytes, pixels or memory than one picture may take.",
        NEVER,
        "Raise `KOSMOGRAPH_MAX_BYTES`, `KOSMOGRAPH_MAX_PIXELS` or `KOSMOGRAPH_MAX_MEMORY_BYTES`, then `retry`.",
    ),
    Code.DECODER_CRASHED: About("The process that decoded it died with it.", NEVER, "Look at the file; convert it."),
    Code.CRASHED_WORKER: About(
        "Two workers died with it, alone.", NEVER, "Look at the file and at the worker's log, then `retry`."
    ),
    Code.BAD_INPUT: About(
        "The cell of the manifest makes no prompt: it is empty, holds a tag, or is no region.",
        NEVER,
        "Correct the cell.",
    ),
    Code.MODEL_ERROR: About(
        "The model could not answer this prompt for this image.", NEVER, "The message says why; shorten the prompt."
    ),
    Code.INTERNAL: About("A bug in Kosmograph.", NEVER, "Report it with the message, then `retry`."),
}
"""For the reference of error codes: docs/reference/errors.md."""


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
