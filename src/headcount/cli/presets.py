"""`headcount presets`."""

from typing import Annotated

import typer

from ..present.catalog import say
from .options import print_json


def add_to(app: typer.Typer, lang: str) -> None:
    """Adds the command, with its help in that language."""

    @app.command(help=say(lang, "cli.presets"))
    def presets(
        json_: Annotated[bool, typer.Option("--json", help=say(lang, "cli.json"))] = False,
        language: Annotated[str, typer.Option("--lang", help=say(lang, "cli.lang"))] = lang,
    ) -> None:
        from ..shape.presets import preset_names, preset_source

        sources = {name: preset_source(name) for name in preset_names()}
        if json_:
            print_json(sources)
            return
        for name, source in sources.items():
            typer.echo(f"{name:48} {source}")
