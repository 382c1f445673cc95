"""Quantities as the autoscaler reads and prints them: whole milli units, finer ones rounded up."""

import re
from decimal import ROUND_UP, Decimal

MAX_INT64 = 2**63 - 1

_SCALES: dict[str, Decimal] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?:(?P<exponent>[eE][+-]?\d+)|(?P<suffix>[KMGTPE]i|[numkMGTPE])?)"
)


def parse_milli(quantity: str | int | float) -> int:
    """A quantity in thousandths; JSON numbers are accepted as Kubernetes does. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity; write a number such as 10, 1.5, 800m or 2k")
    number = Decimal(match["number"] + (match["exponent"] or ""))
    exact = number * _SCALES[match["suffix"] or ""] * 1000
    return max(-MAX_INT64, min(MAX_INT64, int(exact.to_integral_value(ROUND_UP))))


def format_milli(milli: int) -> str:
    """The canonical text: no fraction, and the largest decimal suffix that loses nothing."""
    for suffix in ("m", "", "k", "M", "G", "T", "P"):
        if milli == 0 or milli % 1000 != 0:
            return f"{milli}{suffix}" if milli else "0"
        milli //= 1000
    return f"{milli}E"
