#!/usr/bin/env python3
"""plot.py RESULTS.json PICTURE.svg: one small panel of bars a scenario. The same results give the same bytes.

RESULTS.json: {"machine": {…}, "versions": {…}, "measurements": [{"scenario": "bulk POST, lists of 500", "unit": "Sales/s",
"results": [{"name": "autonomy", "value": 150000, "note": "…"}, …]}, …]}. `note` may be absent; a `value` of null was not measured.
With a name that ends in .png it draws the same as a PNG.
"""

import json
import math
import sys
import textwrap

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

OURS = "autonomy"
OUR_COLOUR, PEER_COLOUR = "#0b6e8f", "#b7c0c8"
TEXT, QUIET, RULE = "#1c2530", "#5c6773", "#dde2e6"

# Lengths are in inches.
WIDTH = 8.4
MARGIN = 0.28
TITLE = 0.37
ROW = 0.27
BAR = 0.19
NOTE_LINE = 0.145
BETWEEN_PANELS = 0.26
FOOTER_LINE = 0.165
AFTER_NAME = 0.12
AFTER_BAR = 0.07
AFTER_VALUE = 0.1
# A bar that would be too thin to see.
THINNEST_BAR = 0.012

NOTE_CHARACTERS = 48
FOOTER_CHARACTERS = 132
NO_BREAK = "\u00a0"

matplotlib.rcParams.update({"svg.hashsalt": OURS, "svg.fonttype": "path", "font.family": "DejaVu Sans", "text.parse_math": False})


def main(source, target):
    with open(source, encoding="utf-8") as file:
        results = json.load(file)
    figure = draw(results)
    figure.savefig(target, facecolor="white", dpi=150, metadata={"Date": None} if target.endswith(".svg") else None)


def draw(results):
    measurements = results["measurements"]
    footer = footer_lines(results)
    height = 2 * MARGIN + sum(panel_height(measurement) + BETWEEN_PANELS for measurement in measurements) + len(footer) * FOOTER_LINE
    figure = plt.figure(figsize=(WIDTH, height))
    # One system of coordinates for all: inches from the upper left corner.
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    page.set_axis_off()
    rows = [row for measurement in measurements for row in measurement["results"]]
    names = max((text_width(page, row["name"], size=9, weight="bold") for row in rows), default=0)
    top = MARGIN
    for measurement in measurements:
        draw_panel(page, measurement, top, MARGIN + names + AFTER_NAME)
        top += panel_height(measurement) + BETWEEN_PANELS
    for place, line in enumerate(footer):
        page.text(MARGIN, top + (place + 0.5) * FOOTER_LINE, line, size=7, color=QUIET, va="center")
    return figure


def panel_height(measurement):
    return TITLE + sum(map(row_height, measurement["results"]))


def row_height(row):
    return ROW + max(0, len(note_lines(row)) - 1) * NOTE_LINE


def note_lines(row):
    return textwrap.wrap(row.get("note") or "", NOTE_CHARACTERS)


def draw_panel(page, measurement, top, left):
    title = page.text(MARGIN, top + 0.17, measurement["scenario"], size=10, weight="bold", color=TEXT, va="baseline")
    page.text(MARGIN + width(title) + 0.1, top + 0.17, measurement["unit"], size=8.5, color=QUIET, va="baseline")
    rows = measurement["results"]
    scale = inches_per_unit(page, rows, WIDTH - MARGIN - left)
    page.plot([left, left], [top + TITLE - 0.04, top + panel_height(measurement)], color=RULE, linewidth=0.8, solid_capstyle="butt")
    top += TITLE
    for row in rows:
        ours = row["name"].lower().startswith(OURS)
        middle = top + row_height(row) / 2
        length = 0.0
        if row["value"] is not None:
            length = max(row["value"] * scale, THINNEST_BAR)
            page.add_patch(Rectangle((left, middle - BAR / 2), length, BAR, color=OUR_COLOUR if ours else PEER_COLOUR, linewidth=0))
        weight = "bold" if ours else "normal"
        page.text(left - AFTER_NAME, middle, row["name"], size=9, weight=weight, color=TEXT, ha="right", va="center")
        value = page.text(left + length + AFTER_BAR, middle, number(row["value"]), size=9, weight=weight, color=TEXT, va="center")
        lines = note_lines(row)
        for place, line in enumerate(lines):
            y = middle + (place - (len(lines) - 1) / 2) * NOTE_LINE
            page.text(left + length + AFTER_BAR + width(value) + AFTER_VALUE, y, line, size=7.5, color=QUIET, va="center")
        top += row_height(row)


def inches_per_unit(page, rows, room):
    """As long as each bar and the texts behind it fit into the line; from zero, linear, so that lengths compare."""
    scales = []
    for row in rows:
        if row["value"]:
            texts = text_width(page, number(row["value"]), size=9, weight="bold")
            notes = max((text_width(page, line, size=7.5) for line in note_lines(row)), default=0)
            scales.append((room - AFTER_BAR - texts - AFTER_VALUE - notes) / row["value"])
    return min(scales, default=0)


def number(value):
    if value is None:
        return "not measured"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    # Three digits that count.
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def text_width(page, string, **look):
    text = page.text(0, 0, string, **look)
    inches = width(text)
    text.remove()
    return inches


def width(text):
    return text.get_window_extent().width / text.figure.dpi


def footer_lines(results):
    lines = []
    for heading in ("machine", "versions"):
        facts = results.get(heading) or {}
        if facts:
            # Lines break between facts only.
            told = " · ".join(f"{name} {told_value(value)}".replace(" ", NO_BREAK) for name, value in facts.items())
            told = told.replace(" · ", f"{NO_BREAK}· ")
            lines += textwrap.wrap(f"{heading.capitalize()}:{NO_BREAK}{told}", FOOTER_CHARACTERS, break_long_words=False)
    return lines


def told_value(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
