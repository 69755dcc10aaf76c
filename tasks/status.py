"""What every host serves, as its own journal and containers say it. Read-only.

pyinfra inventory/prod.py tasks/status.py
"""

from sparkfleet import report

report.print_at_end()
