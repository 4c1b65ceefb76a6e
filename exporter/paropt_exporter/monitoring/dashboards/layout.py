"""Lay out panels in Grafana's grid, and build dashboards with variables, links and annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from grafanalib.core import (
    Annotations,
    Dashboard,
    DashboardLink,
    GridPos,
    Panel,
    RowPanel,
    Template,
    Templating,
    Time,
)
from msgspec import Struct

from paropt_exporter import families
from paropt_exporter.families import Family
from paropt_exporter.monitoring.dashboards.panels import DATASOURCE
from paropt_exporter.monitoring.dashboards.scales import Colour
from paropt_exporter.monitoring.dashboards.scope import GRAFANA_RATE_WINDOW, Scope
from paropt_exporter.monitoring.options import Options

TAG = "paropt"
GRID_WIDTH = 24
STAT_HEIGHT, CHART_HEIGHT, TALL_HEIGHT = 4, 8, 12
_ALL = "$__all"
_REFRESH_WHEN_TIME_CHANGES = 2
_SHOW_VALUES_SORTED = 1
_SHARED_CROSSHAIR = 1
# Every target has job and instance; series may lack the other labels, so their "all" must match the empty value too.
_ANY, _ANY_OR_NONE = ".+", ".*"


class Line(Struct, frozen=True, kw_only=True):
    """Panels of one height, side by side."""

    height: int
    panels: Sequence[Panel]


class Section(Struct, frozen=True, kw_only=True):
    """A titled row with lines of panels."""

    title: str
    lines: Sequence[Line]


class Annotation(Struct, frozen=True, kw_only=True):
    """Marks on the time axis of all panels, where the query's series are above 0. `title` is a template of labels."""

    name: str
    expr: str
    title: str
    colour: Colour


class Variable(Struct, frozen=True, kw_only=True):
    """A variable for a label's values, in addition to job and instance; `one` allows a single value only."""

    label: str
    of: Family
    one: bool = False


class DashboardSpec(Struct, frozen=True, kw_only=True):
    """The specification of a dashboard.

    `sections` and `annotations` are built from the scope of the dashboard's variables and the options. `hours` is the
    initial time range.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    sections: Callable[[Scope], Sequence[Section]]
    annotations: Callable[[Scope], Sequence[Annotation]] = lambda _: ()
    hours: int = 6


def build_dashboard(spec: DashboardSpec, options: Options) -> Dashboard:
    """Return the page as grafanalib's dashboard."""
    scope = Scope(
        variables=tuple(variable.label for variable in spec.variables),
        selector=options.selector.strip(),
        rate_window=options.rate_window or GRAFANA_RATE_WINDOW,
        sla_target=options.sla_target,
    )
    return Dashboard(
        uid=spec.uid,
        title=spec.title,
        description=spec.description,
        tags=[TAG],
        editable=False,
        graphTooltip=_SHARED_CROSSHAIR,
        refresh="30s",
        time=Time(f"now-{spec.hours}h", "now"),
        timezone="browser",
        links=[DashboardLink(title="Paropt", tags=[TAG], asDropdown=True, includeVars=True, keepTime=True)],
        templating=Templating(
            [_build_datasource_variable(options.datasource_uid), *_iter_variables(spec.variables, scope)]
        ),
        annotations=Annotations([_build_annotation(annotation) for annotation in spec.annotations(scope)]),
        panels=[*_iter_placed_panels(spec.sections(scope))],
    )


def _iter_placed_panels(sections: Sequence[Section]) -> Iterator[Panel]:
    top = 0
    for section in sections:
        yield RowPanel(title=section.title, gridPos=GridPos(h=1, w=GRID_WIDTH, x=0, y=top))
        top += 1
        for line in section.lines:
            width = GRID_WIDTH // len(line.panels)
            for index, panel in enumerate(line.panels):
                panel.gridPos = GridPos(h=line.height, w=width, x=index * width, y=top)
                yield panel
            top += line.height


def _build_datasource_variable(uid: str | None) -> Template:
    return Template(
        name="datasource", label="Data source", type="datasource", query="prometheus", default=uid or "default"
    )


def _iter_variables(variables: Sequence[Variable], scope: Scope) -> Iterator[Template]:
    """Yield the variables; each lists the values within the choices before it. job and instance list all exporters."""
    build = families.BUILD_INFO
    selector = f"{{{scope.selector}}}" if scope.selector else ""
    yield _build_multi_variable("job", f"label_values({build.name}{selector}, job)", all_value=_ANY)
    narrowed = ",".join([*([scope.selector] if scope.selector else []), 'job=~"$job"'])
    yield _build_multi_variable("instance", f"label_values({build.name}{{{narrowed}}}, instance)", all_value=_ANY)
    before: list[str] = []
    for variable in variables:
        chosen = [name for name in before if name in variable.of.label_names]
        query = f"label_values({variable.of.name}{{{scope.build_matchers(*chosen)}}}, {variable.label})"
        yield (
            _build_single_variable(variable.label, query)
            if variable.one
            else _build_multi_variable(variable.label, query, all_value=_ANY_OR_NONE)
        )
        before.append(variable.label)


def _build_multi_variable(name: str, query: str, *, all_value: str) -> Template:
    template = _build_query_variable(name, query, includeAll=True, multi=True, allValue=all_value)
    template._current = {"selected": True, "text": ["All"], "value": [_ALL]}
    return template


def _build_single_variable(name: str, query: str) -> Template:
    template = _build_query_variable(name, query)
    template._current = {}
    return template


def _build_query_variable(name: str, query: str, **more: object) -> Template:
    return Template(
        name=name,
        label=name.capitalize(),
        query=query,
        dataSource=DATASOURCE,
        refresh=_REFRESH_WHEN_TIME_CHANGES,
        sort=_SHOW_VALUES_SORTED,
        **more,
    )


def _build_annotation(annotation: Annotation) -> dict[str, object]:
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": annotation.expr,
        "hide": False,
        "iconColor": annotation.colour,
        "name": annotation.name,
        "titleFormat": annotation.title,
        "useValueForTime": False,
    }
