"""docs/preflight.md, written from the catalogue, so that operators read what the checks say."""

from __future__ import annotations

from sparkfleet.findings import CheckText, Elsewhere, book

_HEAD = """# What the preflight says, and what to do

Written from `catalog/preflight.yaml` by `python -m sparkfleet explain --preflight`; change it there.

```bash
pyinfra inventory/prod.py tasks/preflight.py -y        # look at every host, change nothing, safe at any hour
```

Every deploy looks as well, and one unfit host stops it before any change; `--exclude NAME` goes on without that host.
*fail* stops a run, *warn* is said, *info* is said by `tasks/preflight.py` alone. What could not be read is reported as
unknown, with the severity of the second column, and never counts as fit.

A warning that you decided to live with is waived for a time, in the inventory or group_data:

```python
preflight_waivers = {"net.wifi": {"reason": "the office has no cable there", "until": "2027-01-31"}}
```

A failure is passed over for one run that you watch: `--data 'force_preflight=["mem.available"]'`. What this tool can
mend without risk, it mends where you ask for it: `repairs = ["sleep_targets"]`, see `group_data/all.py`. Driver,
firmware, kernel and reboots it never touches: those steps are yours, in a maintenance window.

A report of a problem needs no access to the host: `sudo sparknode collect DIR` there writes what the probe reads,
without serial numbers, UUIDs, tokens and addresses, and here these two say what is wrong with it:

```bash
python3 -m sparknode probe --from DIR > probe.json
python -m sparkfleet check probe.json --profile agentic --image-tag 2026-06-11-pr41703
```

## Before any change
"""
_ELSEWHERE = """
## Decided elsewhere

| id | where |
| --- | --- |
"""
_THRESHOLDS = """
## Thresholds

| name | value | source |
| --- | --- | --- |
"""


def handbook() -> str:
    """Return docs/preflight.md."""
    rows = "".join(_section(row, text) for row, text in book().checks.items())
    other = "".join(f"| {row} | {_place(place)} |\n" for row, place in book().elsewhere.items())
    limits = "".join(f"| {name} | {one.value} | {one.source} |\n" for name, one in book().thresholds.items())
    return _HEAD + rows + _ELSEWHERE + other + _THRESHOLDS + limits


def _section(row: str, text: CheckText) -> str:
    unknown = f"; {text.unknown} where it can't be read" if text.reads else ""
    repair = [f'repairs = ["{text.repair}"]'] if text.repair else []
    steps = [step for step in text.remedy if step not in repair]
    where = "In a maintenance window, by hand" if text.maintenance else "Next"
    lines = [f"\n### {row}\n", f"*{text.severity}{unknown}*: {text.why} [{text.source}]\n"]
    lines += [f"{where}:\n", *(f"    {step}" for step in [*repair, *steps])] if text.remedy else []
    return "\n".join(lines) + "\n"


def _place(place: Elsewhere) -> str:
    rules = ", ".join(f"`explain {rule}`" for rule in place.rules)
    parts = [f"before any connection: {rules}" if rules else "", f"stage: {place.stage}" if place.stage else ""]
    return "; ".join(filter(None, [*parts, f"gates of an activation: {place.gate}" if place.gate else ""]))
