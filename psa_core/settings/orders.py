"""Orders that tokens may be taken in before blocks are cut, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import ConfigError
from .validation import check_choice

# As tokens come.
RASTER = "Raster"
# By their places in the video.
GILBERT, TILE, ROWS, COLUMNS = "Gilbert", "Tile", "Rows", "Columns"
# By what they hold: each head has an order of its own, and its queries have another than its keys.
SEMANTIC, HYBRID = "Semantic", "Hybrid"

ORDERS_BY_CONTENT = (SEMANTIC, HYBRID)
ORDERS_WITH_TILES = (TILE, HYBRID)
REORDER_METHODS = (GILBERT, TILE, ROWS, COLUMNS, *ORDERS_BY_CONTENT)
ORDERS = (RASTER, *REORDER_METHODS)

DEFAULT_CANDIDATE_ORDERS = (RASTER, ROWS, COLUMNS, GILBERT)


def read_candidate_orders(value: Any) -> tuple[str, ...]:
    """``candidate_orders``, which must be a list of orders, as a tuple without repetitions."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ConfigError("candidate_orders", value, "must be a list of one or more of " + ", ".join(ORDERS))
    for order in value:
        check_choice("candidate_orders", order, ORDERS)
    return tuple(dict.fromkeys(value))
