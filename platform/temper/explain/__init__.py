"""What a sweep found, as one page that stands alone, as Markdown and as CSV. It reads records, not code."""

from temper.explain.report import build_report
from temper.explain.sweep_report import SweepReport
from temper.explain.wording import diverged

__all__ = ["SweepReport", "build_report", "diverged"]
