"""A plan as people read it: tables in the terminal, rows for a page, a picture of memory."""

from collections.abc import Sequence
from html import escape

from rich.console import Console
from rich.table import Table

from llama_keras.planning.plan import Plan

_STEPS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_DURATIONS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
# Parts of a device's memory, from below, and their colours in the picture.
_PARTS = {
    "weights": "#4477aa",
    "optimizer": "#66ccee",
    "copies": "#228833",
    "accumulated": "#ccbb44",
    "gradients": "#ee6677",
    "activations": "#aa3377",
    "logits": "#bbbbbb",
}
_BAR, _ROW, _LEFT = 420, 34, 190


def quantity(number: float, unit: str) -> str:
    """Gives a number of three digits with a decimal prefix: `1.24 GB`."""
    for step, prefix in _STEPS:
        if number >= step:
            return f"{number / step:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}"


def duration(seconds: float) -> str:
    """Gives a time in the largest unit that it fills: `3.2 h`."""
    for size, unit in _DURATIONS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e3:.3g} ms"


def describe(plan: Plan) -> str:
    """Gives what is planned, in one line."""
    asked = plan.settings
    what = f"LoRA rank {asked.lora_rank}" if asked.lora_rank else "all weights"
    split = f", {asked.model_devices} a product" if asked.model_devices > 1 else ""
    return (
        f"{plan.shape.name}, {what}, {asked.devices} x {plan.device.name} ({asked.strategy}{split})"
        f", {asked.batch_size} rows of {asked.sequence_length}, {asked.dtype}, {asked.optimizer}"
        f", {asked.logits} logits, attention {asked.attention}{', remat' if asked.remat else ''}"
    )


def memory_rows(plan: Plan) -> list[tuple[str, str]]:
    """Gives the parts of a device's memory."""
    memory = plan.memory
    parts = [(part, quantity(getattr(memory, part), "B")) for part in _PARTS]
    verdict = "fits" if plan.fits else "does not fit"
    return [
        *parts,
        ("most at one time", quantity(memory.peak, "B")),
        ("usable", f"{quantity(plan.usable, 'B')}: {verdict}"),
    ]


def speed_rows(plan: Plan, *, tokens: float | None = None) -> list[tuple[str, str]]:
    """Gives operations, communication and time."""
    time, travel, asked = plan.time, plan.communication, plan.settings
    tokens_per_second = plan.tokens_per_second
    rows = [
        ("weights / that learn", f"{plan.parameters:,} / {plan.learned:,}"),
        ("FLOPs a token", quantity(plan.flops.model, "FLOP")),
        ("  of them attention", quantity(plan.flops.attention, "FLOP")),
        ("  and done again", quantity(plan.flops.recomputed, "FLOP")),
        ("FLOPs a step", quantity(plan.step_flops, "FLOP")),
        ("gradients sent", quantity(travel.gradient_bytes, "B")),
        ("weights sent", quantity(travel.gathered_bytes, "B")),
        ("activations sent", quantity(travel.activation_bytes, "B")),
        ("seconds of sending", f"{duration(travel.data_seconds + travel.model_seconds)}"),
        ("step", duration(time.step)),
        ("  products", duration(time.products)),
        ("  memory traffic", duration(time.traffic)),
        ("  waiting for others", duration(time.waiting)),
        ("tokens/s", f"{tokens_per_second:,.0f}"),
        ("tokens/s a device", f"{tokens_per_second / asked.devices:,.0f}"),
        ("MFU", f"{plan.mfu:.1%}"),
    ]
    if tokens:
        rows.append((f"{quantity(tokens, 'tokens')}", duration(plan.seconds_for(tokens))))
    return rows


def print_plan(plan: Plan, *, tokens: float | None = None) -> None:
    """Prints a plan to the terminal."""
    console = Console()
    console.print(describe(plan), style="bold", highlight=False)
    for title, rows in (
        ("Memory of one device", memory_rows(plan)),
        ("A step", speed_rows(plan, tokens=tokens)),
    ):
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"{plan.device.name}: " + "; ".join(plan.device.sources), highlight=False)


def markdown(plans: Sequence[Plan], *, tokens: float | None = None) -> str:
    """Gives plans as one Markdown table, a row each."""
    head = ["devices", "rows", "remat", "attention", "state", "peak", "fits", "sent", "step"]
    head += ["tokens/s", "MFU"]
    rows = []
    for plan in plans:
        asked = plan.settings
        over = f" / {asked.model_devices}" if asked.model_devices > 1 else ""
        rows.append(
            [
                f"{asked.devices} x {plan.device.name}, {asked.strategy}{over}",
                f"{asked.batch_size} x {asked.sequence_length}",
                "yes" if asked.remat else "no",
                asked.attention,
                quantity(plan.memory.state, "B"),
                quantity(plan.memory.peak, "B"),
                "yes" if plan.fits else "no",
                quantity(plan.communication.sent, "B"),
                duration(plan.time.step),
                f"{plan.tokens_per_second:,.0f}",
                f"{plan.mfu:.0%}",
            ]
        )
        if tokens:
            rows[-1].append(duration(plan.seconds_for(tokens)))
    if tokens:
        head.append(quantity(tokens, "tokens"))
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def memory_picture(plans: Sequence[Plan], *, labels: Sequence[str]) -> str:
    """Gives an SVG of bars: what fills a device's memory, and how much it has.

    Gradients are drawn only where they are more than the activations that go as they come.
    """
    most = max(max(plan.memory.peak, plan.device.memory) for plan in plans)
    parts = [_legend()]
    for number, (plan, label) in enumerate(zip(plans, labels, strict=True)):
        y = 44 + number * _ROW
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        x = float(_LEFT)
        for part, size in _drawn(plan).items():
            width = _BAR * size / most
            title = escape(f"{label}: {part} {quantity(size, 'B')}")
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="20" fill="{_PARTS[part]}">'
                f"<title>{title}</title></rect>"
            )
            x += width
        end = f"{quantity(plan.memory.peak, 'B')}"
        parts.append(f'<text x="{max(x, _LEFT) + 6:.1f}" y="{y + 15}">{end}</text>')
        limit = _LEFT + _BAR * plan.usable / most
        parts.append(
            f'<line x1="{limit:.1f}" x2="{limit:.1f}" y1="{y - 4}" y2="{y + 24}" stroke="#d00" '
            'stroke-width="2"/>'
        )
    width, height = _LEFT + _BAR + 90, 54 + len(plans) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" role="img">'
        "<title>Memory of one device; the red line is what can be filled</title>"
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _drawn(plan: Plan) -> dict[str, float]:
    memory = plan.memory
    passing = ("activations", "logits")
    if memory.gradients > memory.activations + memory.logits:
        passing = ("gradients",)
    stays = ("weights", "optimizer", "copies", "accumulated")
    return {part: getattr(memory, part) for part in (*stays, *passing)}


def _legend() -> str:
    parts, x = [], 10
    for part, colour in _PARTS.items():
        parts.append(f'<rect x="{x}" y="10" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="20">{part}</text>')
        x += 26 + 7 * len(part)
    return "".join(parts)
