"""Runs the examples of README and docs, so that what they show is what the program prints.

    python scripts/examples.py            names the files whose examples are out of date, exit 1
    python scripts/examples.py --write    writes the true output into them

An example is a fenced ``console`` block: a line that starts with ``$ `` is a command, what follows is its output, up to the next command
or the end of the block. A command without a line below it shows no output and is only run. ``python`` blocks are run and must not fail.
Commands of `NOT_RUN` are never run; each has its reason. Files of the Russian tree run as a Russian user would, by their locale.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "README.md", ROOT / "README.ru.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = {
    "make run": "creates .venv in the checkout; tests/test_packaging.py does the same in an empty environment",
    "make test": "would run this very check again",
    "make lint": "part of `make test`, before the tests",
    "make docs": "tests/test_docs.py builds the same pages",
    "make readme": "rewrites the files being checked",
    "make bench": "takes minutes and prints timings that differ from run to run",
    "pip install": "needs a package index; tests/test_packaging.py installs the wheel",
    "headcount --install-completion": "writes into the user's shell start-up files",
}
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """One command and the output shown below it; `shown` is None where the page shows none."""

    command: str
    shown: str | None

    @property
    def reason_not_run(self) -> str | None:
        """Why this command is never run, or None."""
        return next((why for start, why in NOT_RUN.items() if self.command.startswith(start)), None)


def is_russian(path: Path) -> bool:
    """README.ru.md and everything under docs/ru."""
    return ".ru." in path.name or "ru" in path.parts


def examples(block: str) -> list[Example]:
    """The commands of one console block."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    if parts[0].strip():
        raise ValueError(f"a console block must start with a command, but starts with {parts[0][:60]!r}")
    return [Example(command, shown or None) for command, shown in zip(parts[1::2], parts[2::2], strict=True)]


def commands(text: str) -> list[str]:
    """All commands of a page in order, those that are never run too."""
    return [example.command for kind, body in BLOCK.findall(text) if kind == "console" for example in examples(body)]


def run(command: list[str] | str, russian: bool, folder: Path) -> str:
    """Output of a command run by the shell (or a program by its arguments) in a folder outside the checkout; raises when it fails."""
    language = "ru_RU.UTF-8" if russian else "en_US.UTF-8"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "COVERAGE")) and k != "FORCE_COLOR"}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    environment = kept | {"LANG": language, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "PATH": path}
    done = subprocess.run(
        command, shell=isinstance(command, str), cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False,
    )
    # Examples of refusals are welcome: exit 1 is the answer "no", exit 2 is bad input. A traceback or a missing command is neither.
    if done.returncode not in (0, 1, 2) or "Traceback" in done.stderr:
        raise RuntimeError(f"{command}: exit {done.returncode}\n{done.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in (done.stdout + done.stderr).splitlines())


def refreshed(path: Path) -> str:
    """The page with every shown output replaced by the true one. Raises when a command or a Python block fails."""
    russian = is_russian(path.relative_to(ROOT))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def block(match: re.Match[str]) -> str:
            kind, body = match.groups()
            if kind == "python":
                if run([sys.executable, "-W", "error", "-c", body + "\nprint('done')"], russian, folder).splitlines()[-1] != "done":
                    raise RuntimeError(f"{path.name}: this example fails:\n{body}")
                return match[0]
            return f"```console\n{''.join(_parts(body, russian, folder))}```"

        return BLOCK.sub(block, path.read_text(encoding="utf-8"))


def _parts(body: str, russian: bool, folder: Path) -> Iterator[str]:
    for example in examples(body):
        yield f"$ {example.command}\n"
        if example.reason_not_run:
            yield example.shown or ""
            continue
        output = run(example.command, russian, folder)
        if example.shown is not None:
            yield output


def main() -> None:
    """Compares, or writes with ``--write``."""
    stale = {path: text for path in FILES if (text := refreshed(path)) != path.read_text(encoding="utf-8")}
    for path, text in stale.items():
        if "--write" in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    sys.exit(bool(stale) and "--write" not in sys.argv[1:])


if __name__ == "__main__":
    main()
