"""Spilled registers and INT8 in the main loops of a kernel, read off its assembly.

Main loops are the innermost ones with matrix instructions. What waits in memory for the end of a loop, or for a branch
that the last tile of a level takes, costs next to nothing; what every tile loads or stores is counted here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import networkx as nx

_NVIDIA_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", re.MULTILINE)
_MATRIX = re.compile(r"\b(?:[HIQO]MMA|HGMMA|QGMMA|IGMMA|UTC\w*MMA)\b|^v_\w*(?:mfma|wmma)")
_INT8 = re.compile(r"\b(?:IMMA|IGMMA)\b")
_SPILL = re.compile(r"\b(?:LDL|STL)\b|^scratch_(?:load|store)")


class Instruction(NamedTuple):
    """Its text, the places it may jump to, and whether the next instruction may follow it."""

    text: str
    targets: list[int]
    falls_through: bool


class Loop(NamedTuple):
    """A natural loop: all of its instructions, and those that every iteration passes."""

    body: set[int]
    always: set[int]


def loop_spills(program: list[Instruction]) -> list[int]:
    """Loads and stores of spilled registers that every iteration of a main loop makes, a number for each main loop."""
    return [sum(bool(_SPILL.search(program[i].text)) for i in loop.always) for loop in _main_loops(program)]


def int8_loops(program: list[Instruction]) -> int:
    """How many main loops multiply INT8 on every iteration."""
    return sum(any(_INT8.search(program[i].text) for i in loop.always) for loop in _main_loops(program))


def parse_sass(listing: str) -> list[Instruction]:
    """The instructions of what ``cuobjdump -sass`` says of one kernel."""
    lines = [(int(address, 16), text) for address, text in _NVIDIA_LINE.findall(listing)]
    place = {address: i for i, (address, _) in enumerate(lines)}
    reconverge: dict[str, int] = {}
    program = []
    for _, text in lines:
        name = re.sub(r"^@!?U?P\w+ ", "", text)
        name, _, operands = name.partition(" ")
        targets = [place[int(x, 16)] for x in re.findall(r"0x([0-9a-f]+)", operands) if int(x, 16) in place]
        kind = name.split(".")[0]
        if kind == "BSSY":
            # Where the threads that part from here on meet again: what BSYNC on the same register jumps to.
            reconverge[operands.split(",")[0]] = targets[0]
        if kind == "BSYNC":
            targets = [reconverge[operands]]
        elif kind not in ("BRA", "CALL"):
            targets = []
        conditional = text.startswith("@") or re.match(r"!?U?P\d", operands)
        program.append(Instruction(text, targets, kind not in ("BRA", "BSYNC", "EXIT", "RET") or bool(conditional)))
    return program


def parse_amdgcn(assembly: str) -> list[Instruction]:
    """The instructions of an assembly for AMD's GPUs."""
    body = assembly[: assembly.index(".rodata")]
    lines = [line.split(";")[0].strip() for line in body.splitlines()]
    lines = [line for line in lines if line and (line.endswith(":") or not line.startswith("."))]
    place: dict[str, int] = {}
    texts: list[str] = []
    for line in lines:
        if line.endswith(":"):
            place[line[:-1]] = len(texts)
        else:
            texts.append(line)
    return [
        Instruction(
            text,
            [place[text.split()[1]]] if text.startswith(("s_branch", "s_cbranch")) else [],
            not text.startswith(("s_branch", "s_endpgm", "s_setpc")),
        )
        for text in texts
    ]


def _main_loops(program: list[Instruction]) -> list[Loop]:
    if not any(_MATRIX.search(instruction.text) for instruction in program):
        return []
    with_matrix = [loop for loop in _loops(program) if any(_MATRIX.search(program[i].text) for i in loop.body)]
    return [loop for loop in with_matrix if not any(other.body < loop.body for other in with_matrix)]


def _loops(program: list[Instruction]) -> list[Loop]:
    graph = nx.DiGraph()
    graph.add_node(0)
    for i, instruction in enumerate(program):
        following = [i + 1] if instruction.falls_through and i + 1 < len(program) else []
        graph.add_edges_from((i, j) for j in instruction.targets + following)
    graph = graph.subgraph(nx.descendants(graph, 0) | {0}).copy()
    dominator = nx.immediate_dominators(graph, 0)
    loops: dict[int, Loop] = {}
    for end, head in graph.edges:
        # The next instruction, most times: what every way to it passes is not behind it.
        if end != head and dominator.get(head) == end:
            continue
        passed = _dominators(end, dominator)
        if head not in passed:
            continue
        loop = loops.setdefault(head, Loop({head}, passed))
        loop.always.intersection_update(passed)
        waiting = [end]
        while waiting:
            i = waiting.pop()
            if i not in loop.body:
                loop.body.add(i)
                waiting.extend(graph.predecessors(i))
    for loop in loops.values():
        loop.always.intersection_update(loop.body)
    return list(loops.values())


def _dominators(i: int, dominator: dict[int, int]) -> set[int]:
    """What every way to an instruction passes, itself included."""
    found = {i}
    while (above := dominator.get(i)) not in (None, i):
        found.add(i := above)
    return found
