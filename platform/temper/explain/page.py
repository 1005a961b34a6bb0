"""``sweep.html``: one page that stands alone, readable without JavaScript."""

from urllib.parse import quote

from temper.charts import Chart, chart_script, embed_chart
from temper.explain import wording
from temper.explain.charts import alpha_charts, cost_chart, importance_chart
from temper.explain.front_charts import front_charts, proxy_chart
from temper.explain.parallel import AXIS_WIDTH, build_axes, parallel_chart
from temper.explain.sweep_report import SweepReport
from temper.explain.tables import featured, parameter
from temper.explain.trials import parameter_paths
from temper.formats import script_hash, templates


def render_page(report: SweepReport) -> str:
    """The page; every word in it that comes from a file is escaped."""
    environment = templates("temper.explain")
    environment.filters["parameter"] = lambda value: parameter(value) or "–"
    environment.filters["url"] = quote
    charts = build_charts(report)
    script = chart_script() if charts else ""
    return environment.get_template("page.html.j2").render(
        report=report,
        wording=wording,
        paths=parameter_paths(report.trials),
        featured=featured(report),
        charts=charts,
        parallel_width=AXIS_WIDTH * len(build_axes(report.trials, lambda path: False)),
        script=script,
        script_hash=script_hash(script),
    )


def build_charts(report: SweepReport) -> dict[str, list[str]]:
    """Section -> figures; a section without a chart is left out."""
    parallel = parallel_chart(report.trials, lambda path: path in report.log_parameters)
    alpha = "objective.alpha" in report.log_parameters
    sections: dict[str, list[Chart | None]] = {
        "front": [*front_charts(report.trials, report.objectives)],
        "parallel": [parallel],
        "importance": [importance_chart(report.importance, wording.objective(report.metric))],
        "alpha": [*alpha_charts(report.trials, is_log=alpha)],
        "cost": [cost_chart(report.trials)],
        "proxy": [proxy_chart(report.trials, report.metric)],
    }
    drawn = {
        name: [embed_chart(chart) for chart in charts if chart is not None]
        for name, charts in sections.items()
    }
    return {name: figures for name, figures in drawn.items() if figures}
