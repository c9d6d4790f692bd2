"""The README's table of what each backend takes; ``python -m tools.backend_table`` prints it in both languages."""

from __future__ import annotations

from collections.abc import Iterable

from psa_core.ops.kernel_table import QUANTISED, TABLE, Kernels

_HEADS = {
    "en": ("kernels", "`backend`", "GPU", "dtype", "head size", "compute capability (NVIDIA)", "needs"),
    "zh": ("内核", "`backend`", "GPU", "数据类型", "头大小", "计算能力 (NVIDIA)", "需要"),
}
_ANY = {"en": "any, or none", "zh": "任意或没有"}
_EVERY = {"en": "any", "zh": "任意"}
_OR_NEWER = {"en": "{} or newer", "zh": "{} 或更新"}
_WITHOUT = {"en": "{}, not {}.x", "zh": "{} (不含 {}.x)"}
_NOTHING = {"en": "nothing more", "zh": "无"}


def backend_table(language: str) -> str:
    """The table in Markdown, in English (``en``) or Chinese (``zh``)."""
    rows = [
        _HEADS[language],
        ("---",) * len(_HEADS[language]),
        *(_row(kernels, language) for kernels in (*TABLE, QUANTISED)),
    ]
    return "\n".join(f"| {' | '.join(row)} |".replace("| --- ", "|---").replace("--- |", "---|") for row in rows)


def _row(kernels: Kernels, language: str) -> tuple[str, ...]:
    dtypes = (f"`{str(dtype).removeprefix('torch.')}`" for dtype in kernels.dtypes)
    return (
        f"`{kernels.name}`",
        f"`{kernels.backend}`",
        _list(kernels.vendors, _ANY[language]),
        _list(dtypes, _EVERY[language]),
        _list(map(str, kernels.head_sizes), _EVERY[language]),
        _capability(kernels, language),
        _list((_package(name, kernels, language) for name in kernels.needs), _NOTHING[language]),
    )


def _list(words: Iterable[str], otherwise: str) -> str:
    return ", ".join(words) or otherwise


def _package(name: str, kernels: Kernels, language: str) -> str:
    if name != "Triton" or kernels.triton is None:
        return name
    return f"{name} {_OR_NEWER[language].format('.'.join(map(str, kernels.triton)))}"


def _capability(kernels: Kernels, language: str) -> str:
    if kernels.capability is None:
        return _EVERY[language]
    oldest, newest = (version and ".".join(map(str, version)) for version in kernels.capability)
    assert newest in (None, oldest), "no range so far"
    said = str(oldest) if newest else _OR_NEWER[language].format(oldest)
    for major in kernels.lacking:
        said = _WITHOUT[language].format(said, major)
    return said


if __name__ == "__main__":
    for name in _HEADS:
        print(backend_table(name), end="\n\n")
