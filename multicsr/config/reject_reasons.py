"""Names of the reasons to reject a row, built in and of packages."""

from multicsr.extensions import ExtensionGroup
from multicsr.rows import Reason

REJECT_REASONS = ExtensionGroup("multicsr.reject_reasons", "reject reason", tuple(Reason), is_always_on=True)
"""Reasons to reject a row; those of packages are rules for hypotheses."""
