"""`submit`: register a job, and leave the work to running workers."""

import shlex

from kosmograph.exits import DONE, INTERRUPTED
from kosmograph.output import db_option, say
from kosmograph.requests import Request, find_sources, job_name, open_job, recipes_for
from kosmograph.summary import counts, skipped
from schemas.database import Database
from schemas.ledger import jobs
from schemas.locks import job_lock
from schemas.migrations import upgrade
from schemas.settings import Settings
from schemas.signals import interruptible


def submit(request: Request, settings: Settings) -> int:
    """List the sources into the ledger, say what is there, and return the exit code."""
    recipes = recipes_for(request)
    sources = find_sources(request, settings)
    name = job_name(request, sources, recipes)
    database = Database(settings.db)
    upgrade(database)
    with job_lock(database, name), interruptible() as interrupted:
        opened = open_job(database, name, request, sources, recipes, settings)
        totals = opened.register(database, stopped=interrupted.is_set)
    jobs.finish_jobs(database, opened.job.id)
    job = jobs.get_job(database, opened.job.id)
    say(counts(job))
    if line := skipped(totals):
        say(line)
    if interrupted.is_set():
        say("interrupted; the same command continues the listing")
        return INTERRUPTED
    if job.pending:
        db, model = db_option(settings), recipes[0]
        exactly = f"--model {shlex.quote(request.model)} --revision {model.revision} --dtype {model.dtype}"
        say(f"  needs:  kosmograph dispatch{db}")
        web = " --allow-http" if settings.allow_http else ""
        say(f"          kosmograph worker {'--model null' if request.model == 'null' else exactly}{db}{web}")
        say(f"  watch:  kosmograph status {shlex.quote(job.name)}{db}")
    return DONE
