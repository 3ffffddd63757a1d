# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, drawn here: lines over time that fit any width, with a title under the pointer and a sentence for who does not see them.

The plot is stretched to its box (`preserveAspectRatio="none"`, lines keep their width); texts are HTML beside it, so that they are never stretched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from markupsafe import Markup

from .figures import Series

WIDTH, HEIGHT = 600, 120
COLUMNS = 60
COLOURS = 6


@dataclass(frozen=True)
class Line:
    """One line of a chart and how it is called."""

    label: str
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float | None:
        """The newest value."""
        return self.points[-1][1] if self.points else None


@dataclass(frozen=True)
class Legend:
    """An entry beside a chart: `colour` is a number from 1."""

    label: str
    value: str
    colour: int


@dataclass(frozen=True)
class Drawn:
    """A chart that is ready for a page."""

    svg: Markup
    highest: str
    middle: str
    times: tuple[str, ...]
    legend: tuple[Legend, ...]
    sentence: str


def number(value: float, unit: str = "") -> str:
    """A value as people read it: `1.2 k`, `3.4 GiB/s`, `12 %`, `8 ms`."""
    if unit.startswith("B"):
        steps, names = 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
        size, place = abs(value), 0
        while size >= 1000 and place < len(names) - 1:
            size, place = size / steps, place + 1
        return f"{math.copysign(size, value) if size else 0:.{_digits(size)}f} {names[place]}{unit[1:]}"
    if unit == "s":
        size = abs(value)
        if size < 1e-9:
            return "0 s"
        if size < 1e-3:
            return f"{value * 1e6:.{_digits(size * 1e6)}f} µs"
        if size < 1:
            return f"{value * 1e3:.{_digits(size * 1e3)}f} ms"
        return f"{value:.{_digits(size)}f} s"
    if unit == "%":
        return f"{value:.{0 if abs(value) >= 10 or not value else 1}f} %"
    size, name = abs(value), ""
    for step, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= step:
            size, value, name = size / step, value / step, letter
            break
    text = f"{value:.{_digits(size)}f}" + (f" {name}" if name else "")
    return f"{text}{unit}" if unit.startswith("/") else f"{text} {unit}".strip()


def _digits(size: float) -> int:
    return 0 if size >= 100 or size == int(size) else 1 if size >= 10 or abs(size * 10 - round(size * 10)) < 1e-6 else 2


def ceiling(value: float, unit: str) -> float:
    """The upper end of a scale: the next round number, of bytes in powers of two; of per cent 100 once half of it is reached."""
    if value <= 0:
        return 1.0
    if unit == "%":
        return next((top for top in (5.0, 10.0, 20.0, 50.0) if value <= top), 100.0 if value <= 100 else value)
    base = 1.0
    if unit.startswith("B"):
        while value / base >= 1000:
            base *= 1024
    power = 10.0 ** math.floor(math.log10(value / base))
    return next(step * power * base for step in (1, 1.5, 2, 3, 4, 5, 8, 10) if value / base <= step * power * 1.0000001)


def gather(lines: Sequence[Line], parts: bool = False, most: int = COLOURS) -> list[Line]:
    """The lines themselves. Where nobody could tell them apart: of `parts` of a whole the largest and the sum of the others; of things that stand
    beside each other, such as nodes, the highest, the median and the lowest of each moment.
    """
    ordered = sorted((line for line in lines if line.points), key=lambda line: _natural(line.label))
    if parts:
        ordered = [line for line in ordered if any(value for _, value in line.points)] or ordered[:1]
    if len(ordered) <= most:
        return ordered
    if parts:
        by_size = sorted(ordered, key=lambda line: -sum(value for _, value in line.points))
        largest = {line.label for line in by_size[: most - 1]}
        others = _moments([line for line in ordered if line.label not in largest])
        return [line for line in ordered if line.label in largest] + [Line("others", tuple((at, sum(others[at])) for at in sorted(others)))]
    moments = _moments(ordered)
    kinds: tuple[tuple[str, Callable[[list[float]], float]], ...] = (
        ("highest", max),
        (f"median of {len(ordered)}", lambda values: sorted(values)[len(values) // 2]),
        ("lowest", min),
    )
    return [Line(label, tuple((at, pick(moments[at])) for at in sorted(moments))) for label, pick in kinds]


def _moments(lines: Sequence[Line]) -> dict[float, list[float]]:
    """The values of all lines, by time."""
    moments: dict[float, list[float]] = {}
    for line in lines:
        for at, value in line.points:
            moments.setdefault(at, []).append(value)
    return moments


def _natural(text: str) -> tuple[str, int, str]:
    head = text.rstrip("0123456789")
    return head, int(text[len(head) :] or 0) if len(text) - len(head) < 10 else 0, text


def clock(at: float) -> str:
    """A time of day in UTC."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%H:%M")


def lines_of(series: Sequence[Series], label: Callable[[Series], str]) -> list[Line]:
    """Series with names of their own."""
    return [Line(label(one), one.points) for one in series]


def draw(title: str, lines: Sequence[Line], start: float, end: float, step: float, unit: str = "", bars: bool = False, parts: bool = False) -> Drawn | None:
    """A chart of the time from `start` to `end`; None when there is nothing to draw. `step` is the time between two points.

    Lines are `parts` of a whole, or things that stand beside each other (see `gather`).
    """
    shown = gather([Line(line.label, tuple((at, value) for at, value in line.points if start <= at <= end)) for line in lines], parts)
    if not shown or end <= start:
        return None
    lowest = min(0.0, min(value for line in shown for _, value in line.points))
    upper = ceiling(max(value for line in shown for _, value in line.points), unit)
    extent = (upper - lowest) or 1.0

    def x(at: float) -> float:
        return (at - start) / (end - start) * WIDTH

    def y(value: float) -> float:
        return HEIGHT - 2 - (min(value, upper) - lowest) / extent * (HEIGHT - 6)

    pieces = [f'<path class="grid" d="M0 {y(upper):.1f}H{WIDTH}M0 {y((upper + lowest) / 2):.1f}H{WIDTH}M0 {y(lowest):.1f}H{WIDTH}"/>']
    for place, line in enumerate(shown):
        colour = place % COLOURS + 1
        if bars:
            pieces.append(f'<path class="bar c{colour}" d="{_bars(line, x, y, lowest, step, end, start)}"/>')
            continue
        runs = _runs(line.points, step * 2.5)
        if len(shown) == 1:
            pieces.extend(f'<path class="area c{colour}" d="{_path(run, x, y)}V{y(lowest):.1f}H{x(run[0][0]):.1f}Z"/>' for run in runs if len(run) > 1)
        pieces.append(f'<path class="line c{colour}" d="{"".join(_path(run, x, y) for run in runs)}"/>')
    pieces.extend(_hover(shown, start, end, step, unit))
    legend = tuple(Legend(line.label, number(line.last, unit) if line.last is not None else "–", place % COLOURS + 1) for place, line in enumerate(shown))
    sentence = f"{title}, {clock(start)} to {clock(end)} UTC. Latest: " + ", ".join(f"{entry.label} {entry.value}" for entry in legend) + "."
    svg = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">').format(WIDTH, HEIGHT, sentence)
    # Whatever came from outside went through Markup.format or escape; the rest are numbers.
    svg += Markup("".join(pieces)) + Markup("</svg>")
    times = tuple(clock(start + (end - start) * part / 4) for part in range(5))
    return Drawn(svg, number(upper, unit), number((upper + lowest) / 2, unit), times, legend, sentence)


def _runs(points: Sequence[tuple[float, float]], gap: float) -> list[list[tuple[float, float]]]:
    """Points without holes between them."""
    runs: list[list[tuple[float, float]]] = []
    for point in points:
        if not runs or point[0] - runs[-1][-1][0] > gap:
            runs.append([])
        runs[-1].append(point)
    return runs


def _path(run: Sequence[tuple[float, float]], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    if len(run) == 1:
        return f"M{x(run[0][0]) - 1:.1f} {y(run[0][1]):.1f}h2"
    return "M" + "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in run)


def _bars(line: Line, x: Callable[[float], float], y: Callable[[float], float], lowest: float, step: float, end: float, start: float) -> str:
    width = max(1.0, step / (end - start) * WIDTH * 0.7)
    return "".join(f"M{x(at):.1f} {y(lowest):.1f}V{y(value):.1f}h{width:.1f}V{y(lowest):.1f}Z" for at, value in line.points if value > lowest)


def _hover(shown: Sequence[Line], start: float, end: float, step: float, unit: str) -> list[str]:
    """Invisible columns, each with the values of its time as title."""
    width = (end - start) / COLUMNS
    columns: dict[int, dict[str, tuple[float, float]]] = {}
    for line in shown:
        for at, value in line.points:
            column = min(COLUMNS - 1, int((at - start) / width))
            columns.setdefault(column, {})[line.label] = (at, value)
    made = []
    for column in sorted(columns):
        values = columns[column]
        at = max(at for at, _ in values.values())
        text = f"{clock(at)} UTC\n" + "\n".join(f"{label}: {number(value, unit)}" for label, (_, value) in values.items())
        left = column * WIDTH / COLUMNS
        made.append(
            str(Markup('<rect class="spot" x="{:.1f}" y="0" width="{:.1f}" height="{}"><title>{}</title></rect>').format(left, WIDTH / COLUMNS, HEIGHT, text))
        )
    return made
