"""What a person asks for, in the ledger's terms: recipes from prompts and a model, sources, a job and its name."""

import hashlib
import json
import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from kosmograph.output import warn
from kosmograph.prompts import Prompts
from producer.registration import Totals, register_sources
from producer.sources import Filters, Item, Source, forget_spools, open_sources
from schemas.calibration import FILE, Calibration, read_calibrations
from schemas.database import Database
from schemas.errors import SetupError, SourceError, UsageError
from schemas.ledger import jobs
from schemas.ledger.calibrations import add_calibrations
from schemas.ledger.jobs import Job
from schemas.recipes import MAX_NEW_TOKENS, PREPROCESSING, PREPROCESSING_EXACT, Decoding, Recipe
from schemas.roots import Roots, outermost
from schemas.settings import Settings
from schemas.storage import StorageOptions
from schemas.uris import masked, path_of, printable, scheme_of
from schemas.verification import ABSENT, ABSENT_DRAWINGS, Manner


@dataclass(frozen=True)
class Request:
    """Everything that makes one job. `decoding` has what was asked for of `Decoding`, for all of its recipes.

    `verify` is a manner of schemas/verification.py; `absent` are its phrases, none: those that suit the model.
    """

    sources: Sequence[str]
    prompts: Prompts
    model: str
    revision: str | None = None
    dtype: str | None = None
    decoding: Mapping[str, int] = field(default_factory=dict)
    verify: Manner = ""
    absent: Sequence[str] = ()
    job: str | None = None
    exact: bool = False
    priority: int | None = None
    """None: what the job has, or 0 for a new one."""
    strict: bool = False
    limit: int | None = None
    roots: Sequence[str] = ()
    recheck: bool = False
    filters: Filters = field(default_factory=Filters)


@dataclass(frozen=True)
class OpenedJob:
    """A job that is ready to be listed."""

    job: Job
    sources: Sequence[Source]
    recipes: Sequence[Recipe]
    request: Request
    settings: Settings

    def register(self, database: Database, **watch: object) -> Totals:
        """List the sources into the ledger. What was kept of standard input goes once it has been listed whole."""
        totals = register_sources(
            database,
            self.job,
            self.sources,
            chunk_size=self.settings.chunk_size,
            limit=self.request.limit,
            recheck=self.request.recheck,
            **watch,  # type: ignore[arg-type]
        )
        if jobs.get_job(database, self.job.id).listed_at is not None:
            forget_spools([source.spec for source in self.sources], _spool_folder(self.settings))
        return totals


def recipes_for(request: Request, device: str | None = None) -> list[Recipe]:
    """One recipe for each prompt, with the model at the revision that it has now. Loads no torch.

    `device` is where the model will run, if that is on this machine (see `worker.revision.resolve`).
    """
    from worker.revision import DEMO, resolve

    prompts = request.prompts.all()
    decodings = [_decoding(prompt.task, request.decoding) for prompt in prompts]  # wrong usage, before the hub is asked
    _refuse_nothing_to_verify(request)
    model = resolve(request.model, request.revision, request.dtype, device)
    absent = tuple(request.absent) or (ABSENT_DRAWINGS if request.model == DEMO else ABSENT)
    return [
        Recipe(
            task=prompt.task,
            prompt=prompt.text,
            input=prompt.input,
            model=model.name,
            revision=model.revision,
            dtype=model.dtype,
            preprocessing=PREPROCESSING_EXACT if request.exact else PREPROCESSING,
            verify=request.verify if prompt.may_ground else "",
            absent=absent if request.verify and prompt.may_ground else (),
            **decoding.model_dump(),
        )
        for prompt, decoding in zip(prompts, decodings, strict=True)
    ]


def _refuse_nothing_to_verify(request: Request) -> None:
    if request.verify and not any(prompt.may_ground for prompt in request.prompts.all()):
        raise UsageError("--verify holds boxes against the model, and no prompt of this run asks for any: leave it out")
    if unfit := [phrase for phrase in request.absent if not re.match(r"\s*(?!@|column:)[^<\s][^<]*$", phrase)]:
        raise UsageError(
            f"--absent {unfit[0]!r}: name a thing that is hardly in any picture, as in --absent 'a giraffe'"
        )


def _decoding(task: str, asked: Mapping[str, int]) -> Decoding:
    """The task's own decoding with what was asked for in its place. Raises UsageError for what cannot be."""
    try:
        return Decoding.model_validate({"max_new_tokens": MAX_NEW_TOKENS[task], **asked})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    if not first["loc"]:
        raise UsageError(f"{first['ctx']['error']} (the task {task!r}): lower the one, or raise the other")
    flag = "--" + str(first["loc"][0]).replace("_", "-")
    raise UsageError(f"{flag} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}")


def find_sources(request: Request, settings: Settings) -> list[Source]:
    """The sources, each looked into.

    Raises SourceError when one cannot be listed, when all are empty, or when the first image of one is a file that the
    job may not read: so will the others be.
    """
    sources = open_sources(
        request.sources,
        request.filters,
        StorageOptions.of(settings),
        spool_dir=_spool_folder(settings),
        columns=request.prompts.columns,
    )
    first = [item for source in sources if (item := _first_item(source))]
    roots = Roots(roots_of(request, sources))
    for item in first:
        _refuse_outside(item.uri, roots)
    if not first:
        named = ", ".join(request.sources)
        raise SourceError(
            f"no image in {named}; hidden names and known other types are left out (--all-files takes all)"
        )
    return sources


def roots_of(request: Request, sources: Sequence[Source]) -> list[str]:
    """The folders whose local files the job may read: those of its sources, and those that were named besides."""
    for root in request.roots:
        # an absolute one may be there for the workers alone
        if not root or "\0" in root or "://" in root or not (os.path.isabs(root) or os.path.isdir(root)):
            raise UsageError(f"--root takes a folder, as in --root /data/photos, not {printable(masked(root))!r}")
    return outermost({*(os.path.abspath(root) for root in request.roots), *(r for one in sources for r in one.roots)})


def _refuse_outside(uri: str, roots: Roots) -> None:
    """By what is on this disk; the loader looks again, at what it has opened."""
    if scheme_of(uri) != "file":
        return
    try:
        place = os.path.realpath(path_of(uri))
    except ValueError:  # no path of this machine
        return
    if not roots.hold(os.fsencode(place)):
        may, folder = ", ".join(roots.folders) or "none", shlex.quote(os.path.dirname(place))
        raise SourceError(f"{uri} lies outside the folders that this job may read ({may}); --root {folder} adds one")


def job_name(request: Request, sources: Sequence[Source], recipes: Sequence[Recipe]) -> str:
    """The name given, or one that the same sources and recipes always have: `photos-brief-1f3a9c`."""
    if request.job:
        return request.job
    identity = json.dumps([sorted(source.spec for source in sources), sorted(recipe.id for recipe in recipes)])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:6]
    place = re.sub(r"[^A-Za-z0-9]+", "-", sources[0].spec.rstrip("/").rpartition("/")[2]).strip("-").lower()[:24]
    return "-".join(part for part in (place or "job", recipes[0].task, digest) if part)


def open_job(
    database: Database,
    name: str,
    request: Request,
    sources: Sequence[Source],
    recipes: Sequence[Recipe],
    settings: Settings,
) -> OpenedJob:
    """The job, made or reopened, with the words of its listing, and the calibrations that its model brings."""
    words: dict[str, object] = {
        "sources": [source.spec for source in sources],
        "include": request.filters.include,
        "exclude": request.filters.exclude,
        "all_files": request.filters.all_files,
        "limit": request.limit,
        "recheck": request.recheck,
    }
    if request.prompts.columns:  # without, the words are those of before there were columns
        words["columns"] = request.prompts.columns
    job = jobs.open_job(
        database,
        name,
        recipes,
        listing=json.dumps(words, sort_keys=True),
        roots=roots_of(request, sources),
        priority=request.priority,
        strict=request.strict,
    )
    add_calibrations(database, calibrations_of(request.model, recipes))
    return OpenedJob(job, sources, recipes, request, settings)


def calibrations_of(model: str, recipes: Sequence[Recipe]) -> list[Calibration]:
    """Those in the model's folder, as far as they are of these weights, whatever name the folder has by now.

    What is wrong with the file is said, and stops nothing: trust is the evidence without it.
    """
    from worker.revision import folder_of

    folder = folder_of(model)
    if folder is None or not (folder / FILE).is_file():
        return []
    try:
        brought = read_calibrations(folder / FILE)
    except SetupError as error:
        warn(f"{error}; without it, trust is not calibrated")
        return []
    ours = {recipe.revision: recipe.model for recipe in recipes}
    fitting = [one.model_copy(update={"model": ours[one.revision]}) for one in brought if one.revision in ours]
    if len(fitting) < len(brought):
        warn(f"{folder / FILE} is of other weights, and left out; make it again with calibrate")
    return fitting


def _first_item(source: Source) -> Item | None:
    return next((listed.item for listed in source.list(None) if listed.item is not None), None)


def _spool_folder(settings: Settings) -> Path:
    """Where standard input is kept, for a restart: beside the database, or in the temporary folder."""
    path = Database(settings.db).path
    return path.parent if path else Path(tempfile.gettempdir())
