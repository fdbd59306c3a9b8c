"""The pages: what is found, one picture, jobs, one job, failures."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from catalog.commands import retry_command
from catalog.gallery import questions
from catalog.gallery.asked import chips_of, exact_in, form_of, query_of, search_in
from catalog.gallery.guard import own_path, query_without_token
from catalog.gallery.progress import progress_shown
from catalog.gallery.readers import PATIENCE_S, Readers
from catalog.gallery.shown import Shown, name_of, shown
from catalog.queries import progress_of, recipes_of
from catalog.reader import Interrupted, Reader
from catalog.records import Record, records_of
from catalog.search import Hit, Search, cursor_of, find_page, matches_of
from catalog.statement import PLACES
from catalog.templates import templates_of
from schemas.errors import DatabaseAway, UsageError
from schemas.relations import RELATIONS
from schemas.uris import masked, printable

AT_ONCE = 48
BEFORE = 24
"""How far before a picture the grid begins that one goes back to."""
DEMO = "demo"
ROWS, COLUMNS = ("top", "bottom"), ("left", "right")
WHERE = (*PLACES, *(f"{row}-{column}" for row in ROWS for column in COLUMNS))


@dataclass(frozen=True)
class Found:
    """A page of the grid."""

    shown: Sequence[Shown]
    cursor: str = ""
    before: str = ""
    """The cursor behind the first picture, where there may be some before it."""
    all_words: bool = True


class Pages:
    """Answers with pages.

    `index(reader)` takes captions into the index of words, and says whether all are in it. db_option: what commands on
    the pages need to find this database.
    """

    def __init__(self, readers: Readers, index: Callable[[Reader], bool], db_option: str) -> None:
        self._readers = readers
        self._index = index
        self._db_option = db_option
        self._counts = questions.FailureCounts()
        self._templates = templates_of("catalog.gallery")
        self._templates.filters["seen"] = lambda text: printable(masked(str(text)))
        self._templates.globals["demo"] = DEMO

    def page(self, template: str, request: Request, status: int = 200, /, **values: Any) -> Response:
        """A template as a page."""
        text = self._templates.get_template(template).render(
            form=form_of(request.query_params),
            exact=exact_in(request.query_params),
            query=query_of,
            path=request.scope["path"],
            **values,
        )
        return HTMLResponse(text, status)

    def refuse(self, request: Request, status: int, title: str, text: str) -> Response:
        """A page that says why there is none."""
        again = {"here": own_path(request), "asked": query_without_token(request)}
        return self.page("error.html", request, status, code=status, title=title, text=text, **again)

    async def grid(self, request: Request) -> Response:
        """What a search finds; the address is brought into its one form first."""
        wanted: dict[str, Any] = {"error": "", "chips": [], "search": Search(), "found": Found([])}
        choices = await self._readers.ask(questions.choices)
        try:
            search = search_in(request.query_params)
            wanted |= {"search": search, "chips": chips_of(search)}
            after = request.query_params.get("after", "")
            if before := request.query_params.get("before", ""):
                after = await self._readers.ask(_start_before, search, before)
            query = query_of(search, after=after)
            if request.url.query != query[1:] and not _same(request, query):
                return RedirectResponse(f"/{query}", 303)
            wanted["found"] = await self._readers.ask(self._find, search, after)
        except UsageError as error:
            wanted["error"] = str(error)
        status = 400 if wanted["error"] else 200
        options = {"choices": choices, "relations": list(RELATIONS), "places": WHERE}
        return self.page("grid.html", request, status, **wanted, **options)

    def _find(self, reader: Reader, search: Search, after: str) -> Found:
        complete = not search.text or self._index(reader)
        page = find_page(reader, search, limit=AT_ONCE, after=after)
        records = records_of(reader, page.hits, search.job)
        matches = matches_of(reader, search, {record.annotation_id for record in records}) if records else set()
        query = query_of(search)
        cards = [shown(record, matches, _href(record.image_id, record.annotation_id, query)) for record in records]
        before = cursor_of(reader, search, page.hits[0]) if after and page.hits else ""
        return Found(cards, page.cursor, before, complete)

    async def picture(self, request: Request) -> Response:
        """One image by one annotation, between its neighbours in the search that led to it."""
        ids = {name: questions.id_in(text) for name, text in request.path_params.items()}
        image, annotation = ids["image"], ids.get("annotation")
        if image is None or None in ids.values():
            raise HTTPException(404)
        search = search_in(request.query_params)
        found = await self._readers.ask(_picture, image, annotation, search)
        if found is None:
            raise HTTPException(404, "No job has this picture, or none any more.")
        return self.page("picture.html", request, search=search, **found)

    async def jobs(self, request: Request) -> Response:
        rows = (await self._readers.ask(progress_of)).records
        return self.page("jobs.html", request, jobs=[progress_shown(row) for row in reversed(rows)])

    async def job(self, request: Request) -> Response:
        """One job: how far it is, its recipes, its failures by code."""
        name = request.query_params.get("name", "")
        progress, failures = await self._readers.ask(self._job, name)
        recipes = await self._readers.ask(recipes_of, name)
        return self.page("job.html", request, job=progress, failures=failures, recipes=recipes)

    async def job_now(self, request: Request) -> Response:
        """The same as JSON, for the page to ask while the job runs."""
        progress, failures = await self._readers.ask(self._job, request.query_params.get("name", ""))
        return JSONResponse({"job": progress, "failures": failures}, headers={"Cache-Control": "no-store"})

    async def failures(self, request: Request) -> Response:
        """The failures of a job, by code: what failed, why, and the command that tries again."""
        query = request.query_params
        job, code, after = query.get("job", ""), query.get("code", ""), _failure(query.get("after", ""))
        found = await self._readers.ask(self._failures, job, code, after)
        retry = retry_command(job, found["code"], self._db_option)
        return self.page("failures.html", request, job=job, retry=retry, **found)

    def _job(self, reader: Reader, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        row = questions.progress_in(reader, name)
        counts = self._counts.of(reader, row)
        return progress_shown(row), [one | {"example": printable(one["example"])} for one in counts]

    def _failures(self, reader: Reader, job: str, code: str, after: tuple[int, int, str]) -> dict[str, Any]:
        counts = self._counts.of(reader, questions.progress_in(reader, job))
        code = code or (counts[0]["code"] if counts else "")
        rows = questions.failures_page(reader, job, code, after) if code else []
        page = [row | {"name": name_of(row["uri"])} for row in rows[: questions.FAILURES_AT_ONCE]]
        last = page[-1] if len(rows) > len(page) else None
        more = f"{last['image_id']}.{last['recipe_id']}.{last['input']}" if last else ""
        return {"counts": counts, "code": code, "rows": page, "after": more}

    async def failed(self, request: Request, error: Exception) -> Response:
        """The page for what went wrong: asked wrongly or for too much, not there, or without a database."""
        if isinstance(error, DatabaseAway):
            return self.refuse(request, 503, "The database is away", str(error))
        if isinstance(error, Interrupted):
            text = f"Nothing was found within {PATIENCE_S:.0f} s, and the search was given up. Ask for something rarer."
            return self.refuse(request, 503, "That took too long", text)
        if isinstance(error, HTTPException):
            title = "Not here" if error.status_code == 404 else "That did not work"
            text = error.detail if error.detail != "Not Found" else "There is no such page."
            return self.refuse(request, error.status_code, title, text)
        return self.refuse(request, 404 if "there is no job" in str(error) else 400, "Not found", str(error))


def _same(request: Request, query: str) -> bool:
    """Whether two queries say the same, however each is written."""
    return parse_qsl(request.url.query, keep_blank_values=True) == parse_qsl(query[1:], keep_blank_values=True)


def _href(image: int, annotation: int, query: str) -> str:
    return f"/images/{image}/{annotation}{query}"


def _start_before(reader: Reader, search: Search, before: str) -> str:
    """The cursor behind which the pictures come that lie before another one: as many as one page shows."""
    page = find_page(reader, search, limit=AT_ONCE + 1, after=before, backwards=True)
    return cursor_of(reader, search, page.hits[-1]) if len(page.hits) > AT_ONCE else ""


def _picture(reader: Reader, image: int, annotation: int | None, search: Search) -> dict[str, Any] | None:
    versions = questions.versions_of(reader, image)
    if not versions:
        return None
    if annotation is None:
        annotation = next((one.annotation_id for one in reversed(versions) if one.annotation_id is not None), None)
    about = questions.size_of(reader, image)
    common = {"image": image, "about": about, "name": name_of(about["uri"]), "versions": versions}
    if annotation is None:
        return common | {"shown": None, "previous": "", "next": "", "back": "/" + query_of(search)}
    record = _record(reader, Hit(annotation, image), search.job)
    if record is None:
        return None
    matches = matches_of(reader, search, [annotation])
    return common | {"shown": shown(record, matches)} | _neighbours(reader, search, Hit(annotation, image))


def _record(reader: Reader, hit: Hit, job: str) -> Record | None:
    """As the job that is searched has it, or else as the newest one."""
    return next(iter((job and records_of(reader, [hit], job)) or records_of(reader, [hit])), None)


def _neighbours(reader: Reader, search: Search, hit: Hit) -> dict[str, str]:
    """The pictures before and after one in a search, and the grid that begins a little before it; "" for none."""
    here, query = cursor_of(reader, search, hit), query_of(search)
    before = find_page(reader, search, limit=BEFORE, after=here, backwards=True)
    behind = find_page(reader, search, limit=1, after=here)
    back = query_of(search, after=cursor_of(reader, search, before.hits[-1])) if before.cursor else query
    return {
        "previous": _href(before.hits[0].image_id, before.hits[0].annotation_id, query) if before.hits else "",
        "next": _href(behind.hits[0].image_id, behind.hits[0].annotation_id, query) if behind.hits else "",
        "back": f"/{back}#a{hit.annotation_id}-{hit.image_id}",
    }


def _failure(text: str) -> tuple[int, int, str]:
    """Image, recipe and input of a cursor; the beginning for what is none."""
    image, recipe, brought = (*text.split("."), "", "", "")[:3]
    place = questions.id_in(image), questions.id_in(recipe)
    if place[0] is None or place[1] is None or not re.fullmatch("[0-9a-f]*", brought):
        return 0, 0, ""
    return place[0], place[1], brought
