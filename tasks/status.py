"""What every host serves, as its own journal and containers say it. Read-only.

pyinfra inventory/prod.py tasks/status.py
"""

from sparkfleet import report
from sparkfleet.facts import node

node()
report.print_table_at_end()
