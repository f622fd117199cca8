"""Numbers as people of a language read them: three significant digits, decimal comma and no-break spaces in Russian."""

from __future__ import annotations

from .. import units
from .catalog import say

NBSP = "\u00a0"


def number(value: float, lang: str, digits: int = 3) -> str:
    """Three significant digits: 1234.5 -> ``1,230`` (en), ``1 230`` with a no-break space (ru)."""
    return _localised(units.significant(value, digits), lang)


def whole(value: float, lang: str) -> str:
    """All digits of a whole number, grouped."""
    return _localised(f"{int(value):,}".replace(",", " "), lang)


def _localised(text: str, lang: str) -> str:
    if lang == "ru":
        return text.replace(".", ",").replace(" ", NBSP)
    return text.replace(" ", ",")


def gib(value: float, lang: str) -> str:
    """Bytes as GiB, without the unit."""
    return number(value / units.GIB, lang)


def with_unit(value: float, unit: str, lang: str, digits: int = 3) -> str:
    """A number and its unit by catalogue key, joined by a no-break space in Russian."""
    return f"{number(value, lang, digits)}{NBSP if lang == 'ru' else ' '}{say(lang, 'units.' + unit)}"


_SIZES = ((units.TIB, "tib"), (units.GIB, "gib"), (units.MIB, "mib"), (units.KIB, "kib"))


def size(value: float, lang: str) -> str:
    """Bytes in the binary unit that fits: 61 GiB, 160 MiB."""
    for limit, unit in _SIZES:
        if value >= limit:
            return with_unit(value / limit, unit, lang)
    return with_unit(value, "b", lang)


def scaled(value: float, lang: str) -> str:
    """A count with a decimal prefix: 32.8 B (en), 32,8 млрд (ru)."""
    for limit, unit in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if value >= limit:
            return with_unit(value / limit, unit, lang)
    return whole(value, lang)


def milliseconds(value: float, lang: str) -> str:
    """Seconds as ms, without the unit."""
    return number(value * 1e3, lang)


def scientific(value: float, lang: str) -> str:
    """Four digits and a power of ten: 5.817e+14 (en), 5,817·10^14 (ru)."""
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{digits.replace('.', ',')}·10^{int(power)}" if lang == "ru" else f"{digits}e{power}"


def per_token(value: float, lang: str) -> str:
    """Bytes per token: all digits where they are whole (they nearly always are), three where they are not."""
    return whole(value, lang) if float(value).is_integer() else number(value, lang)


def percent(value: float, lang: str) -> str:
    """A share as percent: ``12 %``, with the space that the language wants."""
    space = NBSP if lang == "ru" else " "
    if 0 < value < 0.0001:
        return f"<{number(0.01, lang, 1)}{space}%"
    return f"{number(100 * value, lang, 2)}{space}%"
