"""``compare.md``: a comparison that fits a README or a pull request."""

from temper.comparison.record import ComparisonRecord, PairedDifference
from temper.formats import escape_markdown, markdown_table, percent, points


def to_markdown(comparison: ComparisonRecord) -> str:
    """Sentences and tables; accuracies in percent, differences in points."""
    lines = [
        "# A against B",
        "",
        f"A is {escape_markdown(comparison.a)}, B is {escape_markdown(comparison.b)}: "
        f"{comparison.num_images} images of {escape_markdown(comparison.data.name)}, "
        f"data fingerprint {escape_markdown(comparison.data.fingerprint)}.",
        "",
        *(f"- Warning: {escape_markdown(line)}" for line in comparison.warnings),
        *([""] if comparison.warnings else []),
        *(f"- {sentence(one)}" for one in overall(comparison)),
    ]
    if comparison.robust_refused:
        lines.append(f"- Robust accuracy is not compared: {escape_markdown(comparison.robust_refused)}")
    lines += ["", *_table("accuracy", overall(comparison), comparison), ""]
    if len(comparison.pairs) > 1:
        lines += ["## Seeds", "", *_seeds(comparison), ""]
    lines += ["## Classes", "", *_table("class", comparison.per_class, comparison), "", _footnote(comparison)]
    return "\n".join(lines) + "\n"


def overall(comparison: ComparisonRecord) -> list[PairedDifference]:
    """Clean, and robust where it is compared."""
    return [comparison.clean, *([comparison.robust] if comparison.robust else [])]


def sentence(one: PairedDifference) -> str:
    """The verdict in words."""
    text = f"{one.measure} accuracy: {one.verdict} (A - B {points(one.difference)} points, p {p_value(one)})"
    spread = one.over_seeds
    if spread is None:
        return text
    low, high = points(spread.interval.low), points(spread.interval.high)
    return (
        f"{text}; over {spread.num_seeds} seeds {points(spread.mean)} ± {100 * spread.std:.1f} points "
        f"({low} to {high}), A ahead in {spread.num_ahead_a}, B in {spread.num_ahead_b}"
    )


def name_of(one: PairedDifference, comparison: ComparisonRecord) -> str:
    """What a row of a table is about."""
    measure = one.measure
    if one.class_name is not None:
        return f"{one.class_name}, {measure}"
    return f"{measure}, {comparison.threat.label}" if measure == "robust" and comparison.threat else measure


def p_value(one: PairedDifference) -> str:
    return "<0.001" if one.p_adjusted < 0.001 else f"{one.p_adjusted:.3f}"


def _table(first: str, differences: list[PairedDifference], comparison: ComparisonRecord) -> list[str]:
    columns = [
        first, "A %", "B %", "A - B, points (95 %)", "both", "only A", "only B", "neither", "p", "verdict",
    ]  # fmt: skip
    return markdown_table(columns, [_row(one, comparison) for one in differences], "lrrrrrrrrl")


def _row(one: PairedDifference, comparison: ComparisonRecord) -> list[str]:
    low, high = points(one.interval.low), points(one.interval.high)
    return [
        escape_markdown(name_of(one, comparison)), percent(one.acc_a), percent(one.acc_b),
        f"{points(one.difference)} ({low} to {high})", str(one.cells.both), str(one.cells.only_a),
        str(one.cells.only_b), str(one.cells.neither), p_value(one), one.verdict,
    ]  # fmt: skip


def _seeds(comparison: ComparisonRecord) -> list[str]:
    rows = [
        [
            str(pair.a.seed),
            str(pair.num_images),
            points(pair.clean.difference),
            points(pair.robust.difference) if pair.robust else "",
        ]
        for pair in comparison.pairs
    ]
    return markdown_table(["seed", "images", "clean A - B, points", "robust A - B, points"], rows, "r")


def _footnote(comparison: ComparisonRecord) -> str:
    if len(comparison.pairs) == 1:
        method = "McNemar's test (exact, mid-p); intervals by Newcombe's method 10"
    else:
        method = (
            "the exact sign-flip test over images (mid-p), each image with its answers of all seeds; "
            f"intervals by a bootstrap of {comparison.num_resamples} resamples of the images, "
            "over seeds by Student's t"
        )
    return (
        f"p by {method}. The p-values are adjusted by Holm's method: clean and robust together, all classes "
        "together. A verdict is given below 0.05."
    )
