"""What an operator runs beside deploy.py, one file a task."""
