"""A trial of level maps: how far attention over them is from dense attention, on a few query blocks of a call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..ops.attention.dense import dense_attention, few_queries_attention
from ..ops.block_positions import block_positions
from ..ops.causal import Causal, causal_levels, hidden_keys, visible_blocks
from ..ops.constant import constant
from ..ops.grouped import for_query_heads, group_of
from ..ops.importance.by_head import importance_by_head
from ..ops.importance.estimators import ESTIMATORS
from ..ops.levels.bounds import Quotas
from ..ops.levels.rules import levels_from_importance
from ..ops.reorder import Orders, orders_of_heads
from ..ops.reorder.by_content import Centroids, Content, cluster_content
from ..ops.reorder.orders import first_order, in_order, take_queries
from ..ops.similarity.cap import similarity_cap
from ..settings.config import PSAConfig
from ..settings.orders import ORDERS_BY_CONTENT, RASTER, SEMANTIC
from ..settings.recipe import Recipe
from ..settings.sinks import Sinks, behind, video_range, video_start
from ..settings.sizes import Grid
from .chunks import WHOLE, Chunk, chunks_for
from .errors import Errors, spot_of, squares
from .extra_memory import extra_memory
from .plan import coarsest_level
from .recipes import HeadRecipes, head_recipes
from .trial_rows import ROWS, attend_maps, in_blocks, trial_blocks


@dataclass(frozen=True)
class Trial:
    """One call whose level maps are on trial.

    Attributes:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, as they lie; Hk is H where heads may take other orders.
        config: block sizes, orders, tiles and the cosine cap.
        grid: (frames, height, width) in tokens; None where it is unknown.
        sinks: tokens beside the video that every query sees at full resolution.
        static, static_rule: as in :func:`psa_core.attention.plan.plan_levels`.
        backend: ``"triton"`` or ``"torch"``.
        centroids: of an earlier step, from which clusters start; None for clusters from nothing.
        causal: the causal mask, under which tokens stay as they lie; None without.
        chunk: which heads it has of another trial.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    config: PSAConfig
    grid: Grid | None = None
    sinks: Sinks = ()
    static: torch.Tensor | None = None
    static_rule: str = "intersect"
    backend: str = "torch"
    centroids: Centroids | None = None
    causal: Causal | None = None
    chunk: Chunk = WHOLE

    @property
    def parts(self) -> list[Trial]:
        """Trials of as many heads as keep to ``max_extra_memory``; of all heads there is this one alone."""
        # One that kept itself would keep q, k and v until Python collects circles, which no lack of memory makes it do.
        return self._parts_of_heads or [self]

    @cached_property
    def _parts_of_heads(self) -> list[Trial]:
        """Those of some heads each; none where all heads fit."""
        if not self.config.max_extra_memory:
            return []
        max_level = coarsest_level(self.config, any_level=self.static is not None)
        needed = extra_memory(self.q, self.k, self.v, self.config, max_level, len(self.orders), self.backend)
        batch, heads = self.k.shape[:2]
        chunks = chunks_for(self.config.max_extra_memory, needed, batch, heads, group_of(self.q, self.k))
        return [] if chunks == [WHOLE] else [self._part(chunk) for chunk in chunks]

    def measured(self, measure: Callable[[Trial], Errors]) -> Errors:
        """What is measured of all heads, part after part."""
        if len(self.parts) == 1:
            return measure(self)
        return Errors.of_chunks([(part.chunk, measure(part)) for part in self.parts], *self.q.shape[:2])

    def _part(self, chunk: Chunk) -> Trial:
        q, k, v = chunk.of(self.q), chunk.of_keys(self.k), chunk.of_keys(self.v)
        static = None if self.static is None else chunk.of(self.static)
        return replace(self, q=q, k=k, v=v, static=static, chunk=chunk)

    @property
    def blocks(self) -> tuple[int, ...]:
        sinks = self.sinks if self.causal is None else behind(self.sinks, self.causal.offset)
        return trial_blocks(self.q.shape[2], self.config.block_m, sinks)

    @property
    def stays(self) -> bool:
        """Whether tokens stay as they lie: windows of a static map run along raster order, and the past comes first."""
        return self.static is not None or self.causal is not None

    @property
    def orders(self) -> tuple[str, ...]:
        """Names of the orders that heads choose from."""
        if self.stays:
            return (RASTER,)
        return tuple(dict.fromkeys(map(self._possible, self.config.candidate_orders)))

    def positions(self, blocks: tuple[int, ...]) -> torch.Tensor:
        """Of the queries of some blocks that errors are taken of."""
        block_m = self.config.block_m
        return block_positions(blocks, block_m, self.q.shape[2], self.q.device, block_m // ROWS)

    def one_order(self, name: str) -> Orders | None:
        """The same order for all heads."""
        if self.orders == (RASTER,):
            return None
        # Of several, raster is one of an index too, so that the kernels are the same.
        return self.orders_of((name,), first_order(*self.q.shape[:2], self.q.device))

    @property
    def fixed_order(self) -> Orders | None:
        """The one that the config has for all heads; None for raster, as under a mask and where a grid is missed."""
        order = self.config.order
        if order == RASTER or self.config.radial is not None or self.causal is not None:
            return None
        return self.orders_of((order,), first_order(*self.q.shape[:2], self.q.device))

    def orders_of(self, names: tuple[str, ...], of_head: torch.Tensor) -> Orders | None:
        """The order of each head, by the number of its name, int32 ``[B, H]``; None for all tokens as they lie."""
        names = tuple(map(self._possible, names))
        if self.grid is None and SEMANTIC not in names:
            return None
        content = self.content if any(name in ORDERS_BY_CONTENT for name in names) else None
        tokens = self.q.shape[2], self.k.shape[2]
        start = video_start(self.sinks)
        return orders_of_heads(names, of_head, self.grid, self.config.tile_size, start, tokens, content)

    def _possible(self, order: str) -> str:
        """The order, or raster where it would need a grid that is unknown."""
        return order if self.grid is not None or order == SEMANTIC else RASTER

    @cached_property
    def content(self) -> Content:
        """Clusters of the tokens, which all orders by content share."""
        q, k = (x[:, :, slice(*video_range(self.sinks, x.shape[2]))] for x in (self.q, self.k))
        return cluster_content(q, k, self.centroids)

    def head_recipes(
        self, recipes: Sequence[Recipe], of_head: torch.Tensor, blocks: tuple[int, ...] | None = None
    ) -> HeadRecipes:
        """What heads that take these recipes, by number ``[B, H]``, have to do in some query blocks; None for all."""
        k_blocks = (math.ceil(self.k.shape[2] / self.config.block_n),)
        rows = k_blocks if self.causal is None else visible_blocks(self.causal, blocks)
        return head_recipes(recipes, of_head, self.config.block_n, rows, None if self.stays else self.orders_of)

    def in_orders(self, orders: Sequence[Orders | None]) -> list[TrialInOrder]:
        """The trials of maps over the tokens in the orders that heads take them; None for as they lie."""
        rows = [take_queries(self.q, self.positions(self.blocks), each) for each in orders]
        if self.causal is not None:
            exact = [self._causal_attention(each) for each in rows]
        else:
            # Dense attention does not care for the order of keys. A few rows at a time would leave most of a GPU idle.
            exact = list(dense_attention(torch.cat(rows, 2), self.k, self.v).chunk(len(rows), 2))
        return [TrialInOrder(self, *each) for each in zip(orders, rows, exact, strict=True)]

    def _causal_attention(self, rows: torch.Tensor) -> torch.Tensor:
        """Dense attention of the trial's queries. Torch's own would take a mask of them by all keys."""
        assert self.causal is not None
        k_blocks = math.ceil(self.k.shape[2] / self.config.block_n)
        everything = torch.ones(1, 1, len(self.blocks), k_blocks, dtype=torch.uint8, device=rows.device)
        levels = causal_levels(everything, self.causal, self.blocks)
        facts = self.config.block_n, 1, self.backend
        return attend_maps(rows, self.k, self.v, [levels], *facts, hidden=self.hidden)[:, :, 0]

    @property
    def hidden(self) -> torch.Tensor | None:
        """As in :func:`psa_core.ops.causal.hidden_keys`, of the queries that errors are taken of."""
        if self.causal is None:
            return None
        return hidden_keys(self.causal, self.q.device).index_select(0, self.positions(self.blocks))

    def importance(self, trials: Sequence[TrialInOrder], estimator: str) -> list[torch.Tensor]:
        """Importance in each of several orders, by one estimator: as each of the trials has it."""
        if self.backend != "triton" or len(trials) == 1:
            return [here.importance(estimator) for here in trials]
        # Orders side by side, as if they were batch entries: a few query blocks at a time leave most of a GPU idle. One
        # entry's at a time, which are views of its tokens: of several entries, q and k would have to be copied.
        batch, sizes = len(self.q), (self.config.block_m, self.config.block_n)
        orders = Orders.cat([here.of_heads for here in trials if here.of_heads is not None]).widened()

        def of_entry(b: int) -> torch.Tensor:
            q, k = (x[b : b + 1].expand(len(trials), -1, -1, -1) for x in (self.q, self.k))
            its_orders = orders.of_heads(lambda of_head: of_head[b::batch].contiguous())
            return ESTIMATORS[estimator](q, k, *sizes, self.backend, its_orders, self.blocks)

        return list(torch.stack([of_entry(b) for b in range(batch)], 1))


@dataclass(frozen=True)
class TrialInOrder:
    """A trial over tokens in one order a head.

    Attributes:
        trial: what it belongs to.
        of_heads: the order of each head; None for tokens as they lie.
        rows: the queries of the trial's blocks that errors are taken of, ``[B, H, n, D]``.
        exact: their dense attention.
    """

    trial: Trial
    of_heads: Orders | None
    rows: torch.Tensor
    exact: torch.Tensor

    def part(self, trial: Trial) -> TrialInOrder:
        """What it has of the heads of a part of its trial."""
        if trial is self.trial:
            return self
        of = trial.chunk.of
        of_heads = None if self.of_heads is None else self.of_heads.of_heads(trial.chunk.copy_of)
        return TrialInOrder(trial, of_heads, of(self.rows), of(self.exact))

    @cached_property
    def tokens(self) -> tuple[Orders | None, tuple[torch.Tensor, ...]]:
        """Orders, and q, k and v, as ops take them."""
        trial = self.trial
        return in_order(self.of_heads, trial.backend, trial.q, trial.k, trial.v)

    @cached_property
    def cap(self) -> torch.Tensor | None:
        """Of the cosine similarity."""
        orders, (_, k, _) = self.tokens
        config = self.trial.config
        if not config.use_sim_mask:
            return None
        return for_query_heads(similarity_cap(k, config, self.trial.backend, orders), self.rows.shape[1])

    @cached_property
    def static(self) -> torch.Tensor | None:
        """The rows of the static map."""
        static, blocks = self.trial.static, self.trial.blocks
        return None if static is None else static.index_select(2, constant(blocks, torch.int64, static.device))

    def importance(self, estimator: str) -> torch.Tensor:
        """Importance by one estimator, ``[B, H, blocks, k_blocks]``, in the type that the estimator gives."""
        config, trial = self.trial.config, self.trial
        orders, (q, k, _) = self.tokens
        sizes, blocks = (config.block_m, config.block_n), (trial.blocks, trial.causal)
        return ESTIMATORS[estimator](q, k, *sizes, trial.backend, orders, *blocks)

    def importance_by_head(self, recipes: HeadRecipes) -> torch.Tensor:
        """Importance by each head's own estimator."""
        config, trial = self.trial.config, self.trial
        of_head = recipes.estimators, recipes.estimator_of_head
        orders, (q, k, _) = self.tokens
        sizes, blocks = (config.block_m, config.block_n), (trial.blocks, trial.causal)
        return importance_by_head(q, k, *sizes, *of_head, trial.backend, orders, *blocks)

    def levels(self, importance: torch.Tensor, config: PSAConfig, quotas: Quotas | None = None) -> torch.Tensor:
        """A level map, uint8 ``[B, H, blocks, k_blocks]``, by the config's ``mask_ratios``, or by quotas."""
        trial = self.trial
        return levels_from_importance(
            importance, config, self.cap, self.static, trial.static_rule, trial.sinks, trial.backend,
            quotas, trial.blocks, trial.causal,
        )  # fmt: skip

    def errors(self, maps: list[torch.Tensor]) -> Errors:
        """How far attention over each of the maps is from dense attention."""
        orders, (_, k, v) = self.tokens
        config = self.trial.config
        facts = config.block_n, coarsest_level(config), self.trial.backend
        found = attend_maps(self.rows, k, v, maps, *facts, orders, self.trial.hidden)
        wide = torch.promote_types(found.dtype, torch.float32)
        exact = self.exact.to(wide)
        wrong = squares(in_blocks(found.to(wide) - exact[:, :, None])).movedim(2, 0)
        return Errors(wrong, squares(in_blocks(exact))[None].expand(len(maps), -1, -1, -1))


def measure_again(trial: Trial, orders: Orders | None, out: torch.Tensor) -> torch.Tensor:
    """Squared norms in two of a trial's blocks, of an output less dense attention, and of that.

    Args:
        trial: of the call that gave it.
        orders: of its level map.
        out: ``[B, H, Lq, D]``, tokens as they lie.

    Returns:
        float32 ``[2, B, H]``, as ``Choice.spot``.
    """
    positions = trial.positions(trial.blocks[spot_of(len(trial.blocks))])
    wide = torch.promote_types(out.dtype, torch.float32)
    exact = few_queries_attention(take_queries(trial.q, positions, orders), trial.k, trial.v).to(wide)
    wrong = take_queries(out, positions, orders).to(wide) - exact
    return torch.stack([squares(x) for x in (wrong, exact)])
