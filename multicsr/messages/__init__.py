"""Text for the user: printed with secrets removed, and with errors of other libraries translated."""
