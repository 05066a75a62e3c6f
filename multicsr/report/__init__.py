"""The report of a run: one HTML file that loads nothing from outside."""

from multicsr.report.collect import Report, collect
from multicsr.report.html import REPORT, publish_report, to_html, write_report
from multicsr.report.table import summary

__all__ = ["REPORT", "Report", "collect", "publish_report", "summary", "to_html", "write_report"]
