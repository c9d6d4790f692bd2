"""An amount of steps: a number of them, or a share of all (``"25%"``)."""

from __future__ import annotations

import math
from typing import Any

from .errors import ConfigError
from .validation import whole_of

Amount = int | str
"""Steps as an int, or a share of all steps as text with a percent sign."""

# Guards 25 % of 12 steps against the last bit of a product.
_FUZZ = 1e-9
_MOST_STEPS = 10**9 - 1


def read_amount(key: str, value: Any) -> Amount:
    """An amount as settings hold it: ``15`` and ``"15"`` as an int, ``" 12.50 %"`` as ``"12.5%"``, ``"0%"`` as 0.

    Raises:
        ConfigError: it is neither a whole number from 0 on nor a share from 0% to 100%.
    """
    amount = _read_text(value) if isinstance(value, str) else _read_number(value)
    if amount is None:
        raise ConfigError(key, value, "must be a number of steps such as 15, or a share of them such as 25%")
    return amount


def steps_of(amount: Amount, steps: int | None) -> int:
    """How many of ``steps`` an amount is. A share is rounded up to whole steps; a number may be more than there are.

    Args:
        steps: None where they are unknown, which only a number allows.
    """
    if isinstance(amount, int):
        return amount
    assert steps is not None
    return math.ceil(float(amount.removesuffix("%")) / 100 * steps - _FUZZ)


def _read_number(value: Any) -> Amount | None:
    return value if type(value) is int and 0 <= value <= _MOST_STEPS else None


def _read_text(text: str) -> Amount | None:
    # The second is what Chinese keyboards type.
    text = text.strip().replace("\N{FULLWIDTH PERCENT SIGN}", "%")
    try:
        if not text.endswith("%"):
            return _read_number(whole_of(text))
        percent = float(text.removesuffix("%"))
    except ValueError:
        return None
    if percent == 0:
        return 0
    return f"{percent!r}%".replace(".0%", "%") if 0 < percent <= 100 else None
