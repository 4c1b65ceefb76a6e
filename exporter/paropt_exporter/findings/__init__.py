"""Find the telling lines in the output of a failed check: linters' findings, failing tests and their messages."""

from paropt_exporter.findings.finding import Finding as Finding
from paropt_exporter.findings.finding import Level as Level
from paropt_exporter.findings.search import choose_excerpt as choose_excerpt
from paropt_exporter.findings.search import find_findings as find_findings
