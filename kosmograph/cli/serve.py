"""`serve`: the gallery."""

from typing import Annotated

import typer

from kosmograph.cli.options import AllowHttp, Db


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="What to listen on; beyond this machine a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any that is free.")] = 8765,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="SECRET",
            help="What a browser must know (KOSMOGRAPH_GALLERY_TOKEN, which no list of processes shows).",
        ),
    ] = None,
    allow_http: AllowHttp = None,
    db: Db = None,
) -> None:
    """Show the gallery in the browser: search, pictures with boxes, jobs, failures.

    Example: kosmograph serve --port 8765
    """
    from kosmograph.serve import serve as run

    raise typer.Exit(run(host, port, token=token, allow_http=allow_http, db=db))


COMMANDS = (serve,)
