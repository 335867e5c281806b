"""The clean cross-entropy of NuAT-H, and when it trained with two attack steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nuat.report.figures import PALETTE, chart, figure_style, make_panels

Metrics = Sequence[Mapping[str, Any]]


def draw_switching(metrics: Metrics) -> dict[str, str] | None:
    """Draw the clean cross-entropy by epoch with the two-step spans; None for other methods.

    An epoch's line in metrics.jsonl has `two_step`, the fraction of its batches with two attack
    steps, and `two_step_began`, the times at which the trigger fired.
    """
    lines = [line for line in metrics if "two_step" in line and "clean_loss" in line]
    if not lines:
        return None
    spans = list(two_step_spans(lines))
    share = sum(line["two_step"] for line in lines) / len(lines)
    with figure_style():
        figure, (axes,) = make_panels(1, 260, 1)
        epochs = [line["epoch"] for line in lines]
        axes.plot(
            epochs, [line["clean_loss"] for line in lines], color=PALETTE[0], marker="o", ms=4
        )
        for start, end in spans:
            axes.axvspan(start, end, color=PALETTE[1], alpha=0.3, lw=0)
        axes.set_title("clean cross-entropy")
        axes.set_xlabel("epoch")
        axes.set_xlim(min(epochs) - 1, max(epochs))
        axes.set_ylim(bottom=0)
        listed = ", ".join(f"{start:.2f} to {end:.2f}" for start, end in spans) or "none"
        caption = (
            "Mean cross-entropy of the clean images in each epoch. Shaded: batches with two attack "
            f"steps, {share:.1%} of all. The trigger is a reconstruction."
        )
        alt = f"Clean cross-entropy by epoch. Spans with two attack steps, in epochs: {listed}."
        return chart(figure, alt, caption)


def two_step_spans(lines: Metrics) -> Iterator[tuple[float, float]]:
    """Yield the spans of two-step batches, in epochs.

    A span that began in an epoch starts there and fills the fraction of that epoch that had two
    steps; what goes on from the epoch before fills its beginning. Several spans that begin in one
    epoch share its fraction evenly.
    """
    for line in lines:
        first = line["epoch"] - 1
        starts = list(line.get("two_step_began") or [])
        if not line["two_step"]:
            continue
        if not starts:
            yield first, first + line["two_step"]
            continue
        remaining = line["two_step"]
        for i, start in enumerate(starts):
            length = min(remaining / (len(starts) - i), line["epoch"] - start)
            yield start, start + length
            remaining -= length
        if remaining > 1e-9:  # the rest of a span of the epoch before
            yield first, first + remaining
