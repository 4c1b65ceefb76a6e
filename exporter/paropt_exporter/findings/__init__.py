"""Find the relevant lines in the output of a failed check: linters' findings, failing tests and their messages."""

from paropt_exporter.findings.finding import Finding, Level
from paropt_exporter.findings.search import choose_excerpt, find_findings

__all__ = ["Finding", "Level", "choose_excerpt", "find_findings"]
