"""Programs for those who work on this project. None of them is part of the wheel."""
