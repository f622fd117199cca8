"""The entry point: builds the commands in the user's language, and turns errors into one line and an exit code.

Exit codes: 0 done, 1 the answer is "no", 2 bad input, 3 an extra is missing, 130 interrupted.
"""

import json
import sys
from typing import Annotated, Any

import typer
from typer import rich_utils
from typer.exceptions import TyperException
from ..errors import HeadcountError
from ..present.catalog import LANGUAGES, language_of_environment, say, say_error, say_usage_error
from ..versions import DATA, SCHEMAS, __version__

VERBS = ("explain", "count", "presets")


PANEL_WORDS = {
    "OPTIONS_PANEL_TITLE": "options_title", "COMMANDS_PANEL_TITLE": "commands_title", "ARGUMENTS_PANEL_TITLE": "arguments_title",
    "DEFAULT_STRING": "default_mark",
}
"""typer fixes these words of its help screens in English when it is imported; they are plain module constants."""


def chosen_language(arguments: list[str]) -> str:
    """The language of this call: --lang wherever it stands, else the environment's. Needed before parsing, for the help texts."""
    for i, argument in enumerate(arguments):
        value = argument.partition("=")[2] if argument.startswith("--lang=") else None
        if argument == "--lang" and i + 1 < len(arguments):
            value = arguments[i + 1]
        if value in LANGUAGES:
            return value
    return language_of_environment()


def version_text() -> str:
    """Code, schema and data versions, one per line."""
    lines = [f"headcount {__version__}"]
    lines += [f"schema {name} {number}" for name, number in SCHEMAS.items()]
    lines += [f"data {name} {edition}" for name, edition in DATA.items()]
    return "\n".join(lines)


def build_app(lang: str) -> typer.Typer:
    """All commands, with help in that language."""
    from . import count, explain, presets

    for constant, key in PANEL_WORDS.items():
        setattr(rich_utils, constant, say(lang, f"cli.{key}"))
    app = typer.Typer(help=say(lang, "cli.about"), add_completion=True, pretty_exceptions_enable=False)

    def show_version(asked: bool) -> None:
        if asked:
            typer.echo(version_text())
            raise typer.Exit

    @app.callback()
    def main(
        version: Annotated[bool, typer.Option("--version", help=say(lang, "cli.version"), callback=show_version, is_eager=True)] = False,
        language: Annotated[str, typer.Option("--lang", help=say(lang, "cli.lang"), show_default=False)] = lang,
    ) -> None:
        check_language(language)

    for verb in (explain, count, presets):
        verb.add_to(app, lang)
    return app


def check_language(value: str) -> str:
    """The language, or UnknownNameError."""
    from ..present.catalog import catalog

    catalog(value)
    return value


def run(arguments: list[str] | None = None) -> None:
    """Runs one command line and exits."""
    sys.exit(exit_code(sys.argv[1:] if arguments is None else arguments))


def exit_code(arguments: list[str]) -> int:
    """Runs one command line; returns the exit code. Never a traceback for what a user can cause."""
    lang = chosen_language(arguments)
    try:
        result: Any = build_app(lang)(args=arguments or ["--help"], standalone_mode=False, prog_name="headcount")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except HeadcountError as error:
        if "--json" in arguments:
            print(json.dumps(error.to_dict(), ensure_ascii=False))
        print(say(lang, "cli.error", message=say_error(lang, error)), file=sys.stderr)
        return error.exit_code
    except TyperException as error:
        command = next((f"headcount {a}" for a in arguments[:1] if a in VERBS), "headcount")
        message = say(lang, "cli.usage", detail=say_usage_error(lang, error.format_message()), command=command)
        print(say(lang, "cli.error", message=message), file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print(say(lang, "cli.interrupted"), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the pipe left (head, less): not an error, but Python would complain when it closes stdout.
        sys.stdout = None
        return 0


if __name__ == "__main__":
    run()
