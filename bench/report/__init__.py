"""The report: tables, figures and a page, a pure function of the rows."""

from bench.report.build import ReportPaths, write_report

__all__ = ["ReportPaths", "write_report"]
