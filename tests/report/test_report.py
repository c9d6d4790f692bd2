"""What a report counts: levels against level maps counted by hand, calls, and what it gives as data."""

from __future__ import annotations

import json
import weakref
from collections import Counter

import pytest
import torch

from psa_core import PSAConfig, RadialMask, pyramid_sparse_attention
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run
from psa_core.ops.backends import triton_installed
from psa_core.ops.levels.rules import density, level_shares
from psa_core.report.report import Report, as_document
from psa_core.settings.sinks import text_in_front

from ..support.tensors import DEVICE, Shape, random_levels, random_qkv

CPU = torch.device("cpu")
GRID, TEXT = (3, 6, 10), 21
TOKENS = 201
BLOCKS = {"block_m": 64, "block_n": 32}
RATIOS = {1: (0.0, 0.2), 2: (0.2, 0.3), 8: (0.3, 0.7), 0: (0.7, 1.0)}
BACKENDS = [
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")),
]


def counted(*maps: torch.Tensor) -> dict[int, float]:
    """The mean over maps of each level's share, counted pair by pair."""
    shares: Counter[int] = Counter()
    for levels in maps:
        flat = levels.flatten().tolist()
        for level in flat:
            shares[level] += 1 / len(flat) / len(maps)
    return dict(shares)


def check_shares(actual: dict[int, float], *maps: torch.Tensor) -> None:
    expected = counted(*maps)
    assert {level: share for level, share in actual.items() if share} == pytest.approx(expected, abs=1e-6)
    assert list(actual) == [*sorted(set(actual) - {0}), 0]


def filled(calls: dict[tuple[int, int], torch.Tensor], max_level: int = 32) -> Report:
    """A report of sparse calls with these level maps."""
    report = Report()
    for (step, layer), levels in calls.items():
        report.add_sparse(step, layer, level_shares(levels, max_level), levels)
    return report


class TestLevelShares:
    def test_of_random_maps(self) -> None:
        maps = {(s, layer): random_levels(Shape(2, 3, 300, 320, 64, 64, 32)) for s in (1, 4) for layer in range(3)}
        report = filled(maps)
        check_shares(report.level_shares(), *maps.values())
        for step in (1, 4):
            check_shares(report.level_shares(step), *(x for place, x in maps.items() if place[0] == step))
        assert report.level_shares(2) == {}
        assert [call.density for call in report.sparse_calls()] == pytest.approx(
            [float(density(x)) for x in maps.values()]
        )

    def test_of_calls_with_unlike_levels(self) -> None:
        few = torch.tensor([1, 1, 0, 1], dtype=torch.uint8).view(1, 1, 1, 4)
        many = torch.tensor([16, 2, 0, 1], dtype=torch.uint8).view(1, 1, 1, 4)
        report = Report()
        report.add_sparse(0, 0, level_shares(few, 1), few)
        report.add_sparse(0, 1, level_shares(many, 16), many)
        shares = report.level_shares()
        assert shares == pytest.approx({1: 0.5, 2: 0.125, 4: 0, 8: 0, 16: 0.125, 0: 0.25})
        assert sum(share / level for level, share in shares.items() if level) == pytest.approx(report.density())

    def test_nothing_is_skipped_where_nothing_is(self) -> None:
        levels = torch.tensor([1, 2, 4], dtype=torch.uint8).view(1, 1, 1, 3)
        assert filled({(0, i): levels for i in range(7)}).level_shares()[0] == 0

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        "radial",
        [
            None,
            RadialMask(decay_factor=0.2, block_size=8),
            RadialMask(decay_factor=0.2, block_size=8, mode="coarsen"),
            RadialMask(decay_factor=0.2, block_size=8, mode="intersect"),
        ],
        ids=["selection", "mask", "coarsening mask", "both"],
    )
    def test_of_a_run(self, radial: RadialMask | None, backend: str) -> None:
        config = PSAConfig(mask_ratios=RATIOS, mask_mode="topk", use_sim_mask=True, radial=radial, **BLOCKS)
        run = Run(config, backend, Report(keep_levels=True))
        for layer in range(2):
            qkv = random_qkv(Shape(1, 2, TOKENS, TOKENS), torch.float16 if backend == "triton" else torch.float32)
            run.attend(*qkv, Place(0, layer, GRID, text_in_front(TEXT)))
        check_shares(run.report.level_shares(), *run.report.level_maps.values())

    def test_of_a_static_map_of_any_level(self) -> None:
        shape = Shape(1, 2, TOKENS, TOKENS, 64, 64, 32)
        static = random_levels(shape)
        config = PSAConfig(mask_ratios=RATIOS, **BLOCKS)
        _, info = pyramid_sparse_attention(*random_qkv(shape), config, static_levels=static, return_info=True)
        by_level = {1 << i: share for i, share in enumerate(info.level_shares.tolist()) if share}
        assert by_level == pytest.approx({level: x for level, x in counted(info.levels).items() if level}, abs=1e-6)
        assert float(info.density) == pytest.approx(float(density(info.levels)))

    def test_of_a_mask_are_counted_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = PSAConfig(radial=RadialMask(decay_factor=0.173, block_size=8), **BLOCKS)
        qkv = random_qkv(Shape(1, 1, TOKENS, TOKENS))
        _, first = pyramid_sparse_attention(*qkv, config, grid=GRID, text_length=TEXT, return_info=True)

        def never(*_: object) -> None:
            raise AssertionError

        for module in ("plan", "attend"):
            monkeypatch.setattr(f"psa_core.attention.{module}.level_shares", never)
        _, again = pyramid_sparse_attention(*qkv, config, grid=GRID, text_length=TEXT, return_info=True)
        assert torch.equal(again.level_shares, first.level_shares)


def test_numbers_are_fetched_once_and_then_let_go() -> None:
    report = Report()
    shares = torch.tensor([0.25, 0.5], device=DEVICE)
    alive = weakref.ref(shares)
    report.add_sparse(0, 0, shares, shares, torch.tensor(0.125, device=DEVICE))
    del shares
    assert alive() is not None
    assert report.sparse_calls() == [(0, 0, 0.5)]
    assert alive() is None
    report.add_sparse(0, 1, torch.tensor([1.0], device=DEVICE), torch.ones(1))
    assert report.sparse_calls() == [(0, 0, 0.5), (0, 1, 1.0)]
    assert report.attention_errors() == [(0, 0, 0.125)]
    assert report.sparse_count == 2


def test_recording_reads_no_tensor() -> None:
    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            raise AssertionError(func)

    watched = torch.ones(4, device=DEVICE).as_subclass(Watched)
    report = Report()
    report.add_sparse(0, 0, watched, watched, watched)
    assert report.sparse_count == 1


def test_places() -> None:
    report = filled({(3, 5): random_levels(Shape())})
    report.add_dense("warm-up", 1, 0)
    report.add_dense("cross-attention", 4)
    report.add_dense("unlike")
    assert (report.steps, report.layers) == ({1, 3, 4}, {0, 5})


class TestAsData:
    def report(self) -> Report:
        report = filled({(1, 0): random_levels(Shape(1, 2, 300, 320, 64, 64, 32))})
        with report.dense_call("warm-up", CPU, 0, 0):
            pass
        report.add_dense("warm-up")
        return report

    def test_keys(self) -> None:
        report = self.report()
        document = report.as_dict()
        assert json.loads(json.dumps(document)) == document
        assert list(document) == [
            *("density", "level_shares", "level_shares_by_step", "dense_calls", "seconds", "sparse_calls")
        ]
        assert list(document["level_shares"]) == ["1", "2", "4", "8", "16", "32", "skipped"]
        assert document["level_shares_by_step"] == {"1": document["level_shares"]}
        assert document["dense_calls"] == {"warm-up": 2}
        assert list(document["seconds"]) == ["model", "attention", "sparse", "dense"]
        assert document["sparse_calls"] == [{"step": 1, "layer": 0, "density": document["density"]}]

    def test_of_nothing(self) -> None:
        assert Report().as_dict() == {
            "density": None,
            "level_shares": {},
            "level_shares_by_step": {},
            "dense_calls": {},
            "seconds": {"model": None, "attention": None, "sparse": None, "dense": {}},
            "sparse_calls": [],
        }

    def test_document_of_one_model(self) -> None:
        report = self.report()
        assert as_document([report]) == {"line": report.line(), **report.as_dict()}

    def test_document_of_two_models(self) -> None:
        first, second = self.report(), filled({(2, i): random_levels(Shape(k_tokens=640)) for i in range(3)})
        document = as_document([first, second])
        assert document["models"] == [{"line": x.line(), **x.as_dict()} for x in (first, second)]
        calls = [*first.sparse_calls(), *second.sparse_calls()]
        assert document["density"] == pytest.approx(sum(call.density for call in calls) / 4)
        assert document["sparse_calls"] == [call._asdict() for call in calls]
        assert document["dense_calls"] == {"warm-up": 2}
        assert document["line"].endswith("4 sparse, 2 dense (warm-up 2)")


def test_several_runs_make_one_report() -> None:
    first, second = filled({(0, 0): random_levels(Shape())}), filled({(7, 3): random_levels(Shape())})
    for report, reasons in ((first, ["a", "b"]), (second, ["b"])):
        for reason in reasons:
            with report.dense_call(reason, CPU, 8, 4):
                pass
    before = first.sparse_calls(), second.sparse_calls()
    whole = Report.of([first, second])
    assert whole.dense_reasons == {"a": 1, "b": 2}
    assert whole.sparse_calls() == [*before[0], *before[1]]
    assert (whole.steps, whole.layers) == ({0, 7, 8}, {0, 3, 4})
    both = first.seconds().dense["b"] + second.seconds().dense["b"]
    assert whole.seconds().dense["b"] == pytest.approx(both)
    assert (first.sparse_calls(), second.sparse_calls()) == before
