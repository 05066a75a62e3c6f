"""The page of a profile: at most some 60 lines of 80 columns, as Markdown that is readable as it is."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from multicsr.messages.terminal import one_line
from multicsr.tools.profile.figures import ProfileFigures
from multicsr.tools.profile.operators import OperatorTime
from multicsr.tools.profile.reading import sentences
from multicsr.tools.profile.time_use import RoleTime

WIDTH = 80
"""Columns of the page."""
_NUM_OPERATORS, _NUM_FUNCTIONS, _NUM_WAITS = 8, 8, 3
"""Lines of the tables."""
_LEAST_S = 0.05
"""Least time that is shown in a line of its own."""


def page(figures: ProfileFigures, files: Sequence[str], notes: Sequence[str]) -> str:
    """Return the page.

    Args:
        figures: what it shows.
        files: names of the other files in its folder.
        notes: what the profile lacks, and why.
    """
    lines = [
        f"# Profile of {figures.stage}, run {one_line(figures.run)}",
        "",
        *(line for text in sentences(figures) for line in textwrap.wrap(text, WIDTH)),
        "",
        *_wall(figures),
        *_roles(figures.roles),
        *_operators("Operators of torch", "self s", figures.operators.cpu, figures),
        *_operators("Kernels", "GPU s", figures.operators.gpu, figures),
        *_functions(figures),
        "## Files",
        "",
        *textwrap.wrap(", ".join(files) + ". Open them in https://ui.perfetto.dev.", WIDTH),
        *(line for note in notes for line in textwrap.wrap(note, WIDTH)),
    ]
    return "\n".join(line.rstrip()[:WIDTH] for line in lines) + "\n"


def _wall(figures: ProfileFigures) -> Iterator[str]:
    yield "## Wall time"
    yield ""
    for name, seconds in figures.wall.items():
        if seconds < _LEAST_S:
            continue
        yield f"    {name:34}{seconds:>10,.1f} s {seconds / figures.wall_s:>6.0%}"
    yield f"    {'in all':34}{figures.wall_s:>10,.1f} s"
    workers_s = sum(role.cpu_s for role in figures.roles if role.role != "driver")
    yield f"    CPU: driver {figures.driver_cpu_s:,.1f} s, workers {workers_s:,.1f} s, their starts included"
    for amount in figures.amounts:
        seconds = amount.seconds or figures.working_s
        rate = f", {amount.number / seconds:,.1f}/s while working" if seconds else ""
        yield f"    {amount.number:,.0f} {amount.name}{rate}"
    yield ""


def _roles(roles: Sequence[RoleTime]) -> Iterator[str]:
    yield "## Processes"
    yield ""
    yield f"    {'role':24}{'number':>7}{'CPU s':>9}{'loads':>8}{'computes':>10}{'waits':>8}{'idle':>8}"
    for role in roles:
        loading, computing, waiting, idle = role.shares()
        yield (
            f"    {role.role[:24]:24}{role.num_processes:>7}{role.cpu_s:>9,.1f}"
            f"{loading:>8.0%}{computing:>10.0%}{waiting:>8.0%}{idle:>8.0%}"
        )
    for what in () if roles else ("none recorded",):
        yield f"    {what}"
    yield ""


def _operators(
    title: str, unit: str, times: Mapping[str, OperatorTime], figures: ProfileFigures
) -> Iterator[str]:
    if not times:
        return
    total_s = sum(each.self_s for each in times.values())
    traced = figures.operators
    yield f"## {title}, in {traced.traced_s:,.1f} s of traces, {traced.busy_s:,.1f} s of them in operators"
    yield ""
    yield f"    {'name':42}{unit:>11}{'share':>8}{'calls':>10}"
    for name, each in sorted(times.items(), key=lambda item: -item[1].self_s)[:_NUM_OPERATORS]:
        yield f"    {name[:42]:42}{each.self_s:>11,.2f}{each.self_s / total_s:>8.0%}{each.calls:>10,}"
    yield ""


def _functions(figures: ProfileFigures) -> Iterator[str]:
    if not figures.sampled_s:
        return
    total_s = figures.computed.total()
    yield f"## Functions, in samples of {figures.sampled_s:,.1f} s of work (of ours > of others)"
    yield ""
    for name, seconds in figures.computed.most_common(_NUM_FUNCTIONS):
        yield f"    {name[:56]:56}{seconds:>8,.2f} CPU s{seconds / (total_s or 1):>6.0%}"
    for name, seconds in figures.waited.most_common(_NUM_WAITS):
        yield f"    {name[:56]:56}{seconds:>8,.2f} s waits"
    yield ""
