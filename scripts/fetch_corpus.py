"""Fetches the training text of headcount-tiny: six novels of Jane Austen from the Debian package r-cran-janeaustenr, without R.

    python scripts/fetch_corpus.py FOLDER           writes FOLDER/corpus.json: {title: text}, about 4 MB
    python scripts/fetch_corpus.py FOLDER --deb F   the same from a package file that is already here

The novels are in the public domain, the package (code and compilation) is under the MIT licence. The package is checked by its SHA-256, so
every machine trains on the same bytes. The text is never committed. A .deb is an `ar` archive with a tar inside; the R data file in it is
a row of objects, each a length and a zlib stream, and each object an R character vector, one element per line of the book.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE, VERSION = "r-cran-janeaustenr", "1.0.0-1"
FILE = f"{PACKAGE}_{VERSION}_all.deb"
SHA256 = "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95"
RDB = "./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
TITLES = ("SENSE AND SENSIBILITY", "PRIDE AND PREJUDICE", "MANSFIELD PARK", "EMMA", "NORTHANGER ABBEY", "PERSUASION")
_CHARSXP, _STRSXP, _NA_LENGTH = 9, 16, -1
_VERSION_3_HEADER = 3


def download() -> bytes:
    """The package file, through apt and the package sources that this machine is set up with.

    Raises:
        OSError: there is no apt, or its sources do not give the package; apt's complaint is in the message.
    """
    if not shutil.which("apt-get"):
        raise OSError(f"the corpus comes from the Debian package {PACKAGE} {VERSION}: apt-get is needed, or --deb with the package file")
    with tempfile.TemporaryDirectory() as folder:
        wanted = ["apt-get", "download", f"{PACKAGE}={VERSION}"]
        done = subprocess.run(wanted, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            # A fresh machine has no package lists yet.
            subprocess.run(["apt-get", "update"], capture_output=True, check=False)
            done = subprocess.run(wanted, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"apt-get cannot download {PACKAGE} {VERSION}: {done.stderr.strip()}")
        return next(Path(folder).glob("*.deb")).read_bytes()


def ar_member(archive: bytes, start: str) -> bytes:
    """The first member of an `ar` archive whose name begins so."""
    position = len(b"!<arch>\n")
    while position < len(archive):
        header = archive[position:position + 60]
        size = int(header[48:58])
        if header[:16].decode("ascii").startswith(start):
            return archive[position + 60:position + 60 + size]
        position += 60 + size + size % 2
    raise ValueError(f"no {start} in the package")


def r_objects(rdb: bytes) -> Iterator[bytes]:
    """The serialised objects of an R lazy-load file: a big-endian length, then a zlib stream, one after the other."""
    while rdb:
        stream = zlib.decompressobj()
        data = stream.decompress(rdb[4:])
        if len(data) != int.from_bytes(rdb[:4], "big"):
            raise ValueError("an object of the R data file has another length than it says")
        yield data
        rdb = stream.unused_data


def character_vector(data: bytes) -> list[str]:
    """The elements of an R character vector in XDR serialisation, versions 2 and 3."""
    stream = io.BytesIO(data)

    def integer() -> int:
        return int.from_bytes(stream.read(4), "big", signed=True)

    if stream.read(2) != b"X\n":
        raise ValueError("not R's XDR serialisation")
    version = integer()
    stream.read(8)
    if version == _VERSION_3_HEADER:
        stream.read(integer())
    if integer() & 0xFF != _STRSXP:
        raise ValueError("not a character vector")
    lines = []
    for _ in range(integer()):
        if integer() & 0xFF != _CHARSXP:
            raise ValueError("an element is no string")
        length = integer()
        lines.append("" if length == _NA_LENGTH else stream.read(length).decode("utf-8"))
    return lines


def prose(lines: list[str]) -> str:
    """The lines of a book with each paragraph on one line: where the printer broke a line is not worth learning."""
    paragraphs = re.split(r"\n{2,}", "\n".join(line.strip() for line in lines).strip())
    return "\n\n".join(re.sub(r"\s+", " ", p) for p in paragraphs if p.strip()) + "\n"


def decode(package: bytes) -> dict[str, str]:
    """Title -> text of the six novels, in the order of publication.

    Raises:
        ValueError: the package is not the one that the shipped models were trained on.
    """
    found = hashlib.sha256(package).hexdigest()
    if found != SHA256:
        raise ValueError(f"{FILE} must have SHA-256 {SHA256}, but has {found}")
    with tarfile.open(fileobj=io.BytesIO(ar_member(package, "data.tar"))) as tar:
        member = tar.extractfile(RDB)
        if member is None:
            raise ValueError(f"no {RDB} in the package")
        books = [character_vector(data) for data in r_objects(member.read())]
    titled = {next(line for line in book if line.strip()).strip().upper(): prose(book) for book in books}
    return {title: titled[title] for title in TITLES}


def fetch(folder: Path, deb: Path | None = None) -> Path:
    """Writes FOLDER/corpus.json unless it is there, and gives its path."""
    target = folder / "corpus.json"
    if not target.exists():
        books = decode(deb.read_bytes() if deb else download())
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(books, ensure_ascii=False, indent=0), encoding="utf-8")
        partial.replace(target)
    return target


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fetches the training text of headcount-tiny.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--deb", type=Path, help="the Debian package, if it is already here")
    arguments = parser.parse_args()
    path = fetch(arguments.folder, arguments.deb)
    for title, text in json.loads(path.read_text(encoding="utf-8")).items():
        print(f"{title}: {len(text.encode()):,} bytes")
    print(path)


if __name__ == "__main__":
    main()
