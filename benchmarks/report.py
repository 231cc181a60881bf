"""Tables of what was measured."""

from collections.abc import Sequence

from benchmarks.harness import Comparison, Figure


def tables(comparisons: Sequence[Comparison]) -> str:
    """Gives a table of the claims' ratios and one of all figures."""
    claims = [_claim_row(comparison) for comparison in comparisons]
    figures = [
        (c.claim.name, f.library, f.mode, f.error or f"{_short(f.speed)} {c.claim.unit}/s")
        for c in comparisons
        for f in c.figures
    ]
    heads = ("claim", "ours", "best peer", "ratio", "from … to", "aim", "reached")
    return "\n\n".join(
        [aligned([heads, *claims]), aligned([("claim", "library", "mode", "speed"), *figures])]
    )


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Gives rows, the first of them heads, as a Markdown table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _claim_row(comparison: Comparison) -> tuple[str, ...]:
    claim, ratio, ratios = comparison.claim, comparison.ratio, comparison.ratios
    unit = f" {claim.unit}/s"
    ours, peer = (
        f"{_short(f.speed)}{unit} ({_who(f, named)})" if f else ""
        for f, named in ((comparison.ours, False), (comparison.peer, True))
    )
    return (
        claim.name,
        ours,
        peer,
        f"{ratio:.2f}" if ratio else "",
        f"{min(ratios):.2f} … {max(ratios):.2f}" if ratios else "",
        f"≥ {claim.aim}" if claim.aim else "",
        ("yes" if ratio >= claim.aim else "no") if ratio and claim.aim else "",
    )


def _who(figure: Figure, named: bool) -> str:
    return f"{figure.library} {figure.mode}" if named else figure.mode


def _short(speed: float) -> str:
    return f"{speed:.3g}" if speed < 100 else f"{speed:.0f}"
