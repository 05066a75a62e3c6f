"""Report of a run: one HTML file that loads no external resources."""

from multicsr.stages.report.collect import Report, collect
from multicsr.stages.report.html import REPORT, publish_report, to_html, write_report
from multicsr.stages.report.table import summary

__all__ = ["REPORT", "Report", "collect", "publish_report", "summary", "to_html", "write_report"]
