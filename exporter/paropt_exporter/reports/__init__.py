"""Reports of a run for other programs: JUnit, GitHub, GitLab, JSON, a trace, OpenTelemetry."""

from paropt_exporter.reports.reporting import KINDS as KINDS
from paropt_exporter.reports.reporting import ReportOption as ReportOption
from paropt_exporter.reports.reporting import Reports as Reports
from paropt_exporter.reports.reporting import parse as parse
