"""Results of a benchmark that nobody has run."""

from __future__ import annotations

from benchmarks.op.cases import length_cases
from benchmarks.op.flex import FLEX
from benchmarks.op.stages import KERNEL
from psa_core.apps.bench.cases import DENSITIES, WAN_720P
from psa_core.apps.bench.ours import Setting
from psa_core.apps.bench.results import Machine, Results, Row
from psa_core.apps.bench.rivals import CUDNN

MACHINE = Machine("Imaginary GPU", None, "0.0", "0.0", "2000-01-01")


def made_up_results() -> Results:
    rows = [
        Row.of("cases", WAN_720P, CUDNN, ms=10.0, ratio=1.0),
        Row.of("cases", WAN_720P, "a rival", refusal="not installed"),
        Setting("mean").row("cases", WAN_720P).replace(ms=2.5, ratio=4.0),
        Setting("mean").row("locality", WAN_720P).replace(density=None, reached_density=0.3, ms=5.0, ratio=2.0),
        Setting("mean").row("model", WAN_720P).replace(ms=5.0, ratio=2.5),
        Setting("mean").row("stages", WAN_720P).replace(ms=2.5, ratio=4.0),
        Setting("mean").row("stages", WAN_720P).replace(stage=KERNEL, ms=2.0),
    ]
    for case in length_cases():
        rows.append(Setting("mean").row("length", case).replace(ms=1.0, ratio=case.tokens / 10_000))
    for density in DENSITIES:
        rows.append(Setting("mean", density=density).row("density", WAN_720P))
        rows[-1] = rows[-1].replace(reached_density=density, ms=1.0, ratio=0.8 / density)
        flex = Row.of("density", WAN_720P, FLEX, density=density, reached_density=density, ms=1.0, ratio=0.6 / density)
        rows.append(flex)
    return Results(MACHINE, CUDNN, rows)
