"""Reports of a run for other programs: JUnit, GitHub, GitLab, JSON, a trace, OpenTelemetry."""

from paropt_exporter.reports.options import KINDS as KINDS
from paropt_exporter.reports.options import ReportOption as ReportOption
from paropt_exporter.reports.options import parse as parse
from paropt_exporter.reports.reporting import Reports as Reports
