"""The report of a run: one HTML file that loads nothing from outside."""

from multicsr.report.collect import Report, collect
from multicsr.report.html import to_html, write_report
from multicsr.report.table import summary

REPORT = "report.html"
"""In the store."""

__all__ = ["REPORT", "Report", "collect", "summary", "to_html", "write_report"]
