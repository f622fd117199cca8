"""How people write the names of GPUs, reduced to words: Cyrillic, another keyboard, glued or spaced, with vendor and memory size.

It must not know which devices exist: it turns text into readings (sets of words), and `names.py` looks them up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# By sound (ртх -> rtx), by look (н100, в200 typed with letters that look right), by sound with х as h (х100), and a Latin name
# typed with the Russian layout switched on (кеч -> rtx). Each is tried in turn; which was meant shows in which one exists.
_SOUND = dict(zip("абвгдежзийклмнопрстуфхцыэюя", "a b v g d e g z i i k l m n o p r s t u f x c i e u a".split(), strict=True))
_LOOK = _SOUND | dict(zip("авекмнорстух", "abekmhopctyx", strict=True))
_HARD = _SOUND | {"х": "h", "н": "h"}
_LAYOUT = dict(zip("йцукенгшщзхъфывапролджэячсмитьбю", "qwertyuiop[]asdfghjkl;'zxcvbnm,.", strict=True))
_SILENT = str.maketrans("", "", "ьъ")

# Whole words that no letter-by-letter reading gives. Russian words lose their soft signs before they are looked up.
_WORDS = {
    "ртикс": "rtx", "рткс": "rtx", "артикс": "rtx", "эртэикс": "rtx", "блэквелл": "blackwell", "блеквелл": "blackwell",
    "блэквел": "blackwell", "блеквел": "blackwell", "макс": "max", "кю": "q", "нвидиа": "nvidia", "нвидия": "nvidia",
    "энвидиа": "nvidia", "энвидия": "nvidia", "жефорс": "geforce", "джифорс": "geforce", "квадро": "quadro", "сервер": "server",
    "серверная": "server", "серверный": "server", "рабочая": "workstation", "станция": "", "тюринг": "turing", "ампер": "ampere",
    "эпл": "apple", "эппл": "apple", "видеокарта": "gpu", "карта": "gpu", "компьютер": "machine", "машина": "machine", "эта": "this",
    "этот": "this", "процессор": "cpu", "цп": "cpu", "локально": "local",
    "bw": "blackwell", "bwell": "blackwell", "blackwel": "blackwell", "ws": "workstation", "station": "", "work": "workstation",
    "srv": "server", "se": "server", "maxq": "max q", "sxm2": "sxm", "sxm3": "sxm", "sxm4": "sxm", "sxm5": "sxm", "sxm6": "sxm",
    "hgx": "sxm", "pci": "pcie", "computer": "machine",
}
_NOISE = {
    "nvidia", "geforce", "gpu", "amd", "intel", "apple", "instinct", "card", "video", "edition", "generation", "tensor", "core", "the",
    "with", "gddr", "hbm", "vram", "memory", "silicon", "chip", "tesla", "radeon",
}
_MOST_LETTERS = 200
"""Longer than any name: what is read of a longer text."""
_MEMORY = re.compile(r"(?<![\w])(\d{1,4})\s*-?\s*(?:gib|gb|g|гиб|гб|г)(?![\w])", re.IGNORECASE)
_DROPPED = re.compile(r"(?:hbm|gddr)\d\w*", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """The words of a name, order and repetition ignored, and the memory size in GB that it gave, if any."""

    words: frozenset[str]
    memory_gb: int | None = None


def readings(text: str) -> list[Reading]:
    """Every way to read a name, the likeliest first; the same words for ``RTX4090``, ``rtx 4090`` and ``ртх-4090``."""
    plain = re.sub(r"pci[ -]?e(?![a-z])", "pcie", text.strip().lower().replace("ё", "е")[:_MOST_LETTERS])
    memory = _MEMORY.search(plain)
    plain = _DROPPED.sub(" ", _MEMORY.sub(" ", plain))
    found: list[Reading] = []
    for letters in (_SOUND, _LOOK, _HARD, _LAYOUT):
        reading = Reading(_words(plain, letters), int(memory[1]) if memory else None)
        if reading.words and reading not in found:
            found.append(reading)
    return found


def _words(text: str, letters: dict[str, str]) -> frozenset[str]:
    words: set[str] = set()
    for raw in re.findall(r"[^\s_/,;:()\[\]|+®™-]+", text):
        word = raw.translate(_SILENT) if letters is not _LAYOUT else raw
        known = _WORDS.get(raw, _WORDS.get(word))
        latin = known if known is not None else "".join(letters.get(c, c) for c in word)
        words.update(re.findall(r"[a-z]+|\d+", _WORDS.get(latin, latin)))
    expanded = {part for w in words for part in _WORDS.get(w, w).split()}
    return frozenset(expanded - _NOISE)
