"""Sentences that interpret the figures of a profile. Each follows from a rule and names its figure.

The rules, which docs/how-to/profile.md explains:
1. The largest part of the wall time; a longer run pays the start of Ray and of models once.
2. Of the role with the largest CPU time: what its processes waited for if they waited or were idle for at
   least `_MUCH` of their time, else that they computed. A training: what its steps waited for most.
3. If operators covered less than `_COVERED` of the traced time: this share. Else the share of matrix
   products, and of the largest other operator.
"""

from collections.abc import Iterator

from multicsr.tools.profile.figures import ProfileFigures
from multicsr.tools.profile.time_use import LOAD, RAY, WORK, RoleTime

_MUCH = 0.2
"""Least share of the time of a role that waiting or idle time must have to be named."""
_COVERED = 0.7
"""Least share of the traced time that operators must cover for them to explain it."""
_PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "linear", "mkldnn_linear", "mv", "scaled_dot_product")
"""Names, without `aten::`, or parts of names, of operators that multiply matrices."""
_ONCE = {RAY, LOAD}


def sentences(figures: ProfileFigures) -> list[str]:
    """Return two or three sentences."""
    return [*_on_wall_time(figures), *_on_workers(figures), *_on_operators(figures)]


def _on_wall_time(figures: ProfileFigures) -> Iterator[str]:
    part = max(figures.wall, key=figures.wall.__getitem__)
    share = figures.wall[part] / figures.wall_s
    if part == WORK:
        yield f"Workers worked in {share:.0%} of the wall time."
    elif part in _ONCE:
        yield f"The largest part of the wall time is '{part}' ({share:.0%}), which a longer run pays once."
    else:
        yield f"The largest part of the wall time is '{part}' ({share:.0%}), in which no worker worked."


def _on_workers(figures: ProfileFigures) -> Iterator[str]:
    if not figures.roles:
        return
    role = figures.roles[0]
    _, computing, waiting, idle = role.shares()
    steps_s = next((each.seconds for each in figures.amounts if each.seconds), None)
    if figures.training_waits and steps_s:
        what = max(figures.training_waits, key=figures.training_waits.__getitem__)
        share = figures.training_waits[what] / steps_s
        yield f"The steps of the training waited {share:.0%} of their time for {what}."
    elif waiting >= _MUCH and waiting >= idle and figures.waited:
        [(function, _)] = figures.waited.most_common(1)
        yield f"{_name(role)} waited {waiting:.0%} of the time, mostly in {function}."
    elif idle >= _MUCH:
        yield f"{_name(role)} had nothing to do {idle:.0%} of the time, between or after their items."
    else:
        yield f"{_name(role)} computed {computing:.0%} of the time."


def _name(role: RoleTime) -> str:
    return f"The processes of '{role.role}'"


def _on_operators(figures: ProfileFigures) -> Iterator[str]:
    operators = figures.operators
    if not operators.cpu or not operators.traced_s:
        return
    covered = operators.busy_s / operators.traced_s
    if covered < _COVERED:
        yield (
            f"Operators of torch covered {covered:.0%} of the traced time; the rest went to Python, to what "
            "is no operator, and to waiting."
        )
        return
    total_s = sum(each.self_s for each in operators.cpu.values())
    products_s = sum(each.self_s for name, each in operators.cpu.items() if is_product(name))
    others = {name: each.self_s for name, each in operators.cpu.items() if not is_product(name)}
    text = f"Matrix products took {products_s / total_s:.0%} of the operators' time"
    if others:
        largest = max(others, key=others.__getitem__)
        text += f", {largest} as the largest other operator {others[largest] / total_s:.0%}"
    yield f"{text}."


def is_product(operator: str) -> bool:
    """Return True if an operator multiplies matrices, attention in one operator included."""
    name = operator.removeprefix("aten::").removeprefix("_")
    return name in _PRODUCTS or name.startswith(_PRODUCTS[-1])
