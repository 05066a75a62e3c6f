"""Tasks for `multicsr evaluate`, made of tables of clicks or duplicates."""
