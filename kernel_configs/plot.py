"""Draws the comparison as an SVG, by hand: predicted time over M, and as a multiple of ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from kernel_configs.catalog import models
from kernel_configs.compare import LATER, MODEL, RELEASE, TP, TRITON, Row

WIDTH, LEFT, RIGHT = 860, 78, 30
TOP, HIGH, GAP, LOW = 76, 270, 62, 190
HEIGHT = TOP + HIGH + GAP + LOW + 62
# Told apart by lightness and dash too; the colors are Okabe and Ito's for color-blind readers.
SERIES = (
    ("ours", "ours", "#0072b2", ""),
    ("published", "published", "#d55e00", "7 4"),
    ("default", f"default, SGLang {RELEASE}", "#555555", "2 4"),
    ("later", f"default, SGLang {LATER} and later", "#009e73", "10 3 2 3"),
)
_TICKS_M = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Panel:
    """A drawing area: where it lies and which values its axis spans; log tells how it is divided."""

    top: float
    height: float
    low: float
    high: float
    log: bool

    def y(self, value: float) -> float:
        """The height in pixels of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.top + self.height * (1 - share)


def x(m: float) -> float:
    """The horizontal place of a batch size."""
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(m) / math.log(_TICKS_M[-1])


def svg(found: Sequence[Row]) -> str:
    """The drawing."""
    times = {whose: [(row.m, row.layer(whose)) for row in found] for whose, *_ in SERIES}
    ours = dict(times["ours"])
    ratios = {whose: [(m, _ratio(value, ours[m])) for m, value in points] for whose, points in times.items()}
    most = max(value for points in ratios.values() for _, value in points if value)
    upper = Panel(TOP, HIGH, 1e-4, 2e-2, log=True)
    lower = Panel(TOP + HIGH + GAP, LOW, 0.95, math.ceil(most * 10 + 0.5) / 10, log=False)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, f"MoE layer of {MODEL}, tp {TP}, Triton {TRITON}: predicted by a model, not measured", size=15),
        *_legend(),
        *_axes(upper, ((1e-4, "0.1"), (1e-3, "1"), (1e-2, "10")), "ms, both GEMMs"),
        *_axes(
            lower, [(step / 10, f"{step / 10:.1f}") for step in range(10, round(lower.high * 10) + 1)], "times ours"
        ),
    ]
    for whose, _, color, dash in SERIES:
        parts.append(_line(times[whose], upper, color, dash))
        parts.append(_line(ratios[whose], lower, color, dash))
    parts += _crash(upper)
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "M, tokens in a forward pass", anchor="middle"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ratio(value: float | None, ours: float | None) -> float | None:
    return value / ours if value is not None and ours else None


def _text(left: float, top: float, words: str, size: int = 13, anchor: str = "start", extra: str = "") -> str:
    place = f'x="{left:.1f}" y="{top:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222222"{extra}'
    return f"<text {place}>{escape(words)}</text>"


def _legend() -> Iterable[str]:
    left = float(LEFT)
    for _, words, color, dash in SERIES:
        yield f'<path d="M{left:.1f} 48h30" stroke="{color}" stroke-width="2.5" stroke-dasharray="{dash}" fill="none"/>'
        yield _text(left + 36, 52, words)
        left += 62 + 6.9 * len(words)


def _axes(panel: Panel, ticks: Iterable[tuple[float, str]], title: str) -> Iterable[str]:
    bottom = panel.top + panel.height
    for m in _TICKS_M:
        yield f'<path d="M{x(m):.1f} {panel.top:.1f}V{bottom:.1f}" stroke="#eeeeee"/>'
        yield _text(x(m), bottom + 18, str(m), size=12, anchor="middle")
    for value, words in ticks:
        height = panel.y(value)
        yield f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>'
        yield _text(LEFT - 8, height + 4, words, size=12, anchor="end")
    yield f'<path d="M{LEFT} {panel.top:.1f}V{bottom:.1f}H{WIDTH - RIGHT}" stroke="#222222" fill="none"/>'
    middle = panel.top + panel.height / 2
    yield _text(22, middle, title, anchor="middle", extra=f' transform="rotate(-90 22 {middle:.1f})"')


def _line(points: Iterable[tuple[int, float | None]], panel: Panel, color: str, dash: str) -> str:
    known = [(x(m), panel.y(value)) for m, value in points if value is not None]
    path = "M" + "L".join(f"{left:.1f} {top:.1f}" for left, top in known)
    return f'<path d="{path}" stroke="{color}" stroke-width="2.5" stroke-dasharray="{dash}" fill="none"/>'


def _crash(panel: Panel) -> Iterable[str]:
    """Beyond as many tokens as experts the old default does not fit."""
    left = x(models()[MODEL].shape.experts + 1)
    yield (
        f'<rect x="{left:.1f}" y="{panel.top}" width="{WIDTH - RIGHT - left:.1f}" height="{panel.height}" '
        'fill="#555555" fill-opacity="0.07"/>'
    )
    yield _text(left + 8, panel.top + panel.height - 28, f"default of SGLang {RELEASE}:", size=12)
    yield _text(left + 8, panel.top + panel.height - 12, "does not fit, the server dies", size=12)
