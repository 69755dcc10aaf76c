"""docs/preflight.md, written from the catalogue, so that operators read what the checks say."""

from __future__ import annotations

from sparkfleet.findings import CheckText, Elsewhere, book


def handbook() -> str:
    rows = {
        "checks": "".join(_section(row, text) for row, text in book().checks.items()),
        "elsewhere": "".join(f"| {row} | {_place(place)} |\n" for row, place in book().elsewhere.items()),
        "thresholds": "".join(f"| {name} | {one.value} | {one.source} |\n" for name, one in book().thresholds.items()),
    }
    page = book().handbook
    for name, text in rows.items():
        page = page.replace(f"@{name}@", text)
    return page.rstrip("\n") + "\n"


def _section(row: str, text: CheckText) -> str:
    unknown = f"; {text.unknown} where it can't be read" if text.reads else ""
    repair = f'repairs = ["{text.repair}"]'
    # In the catalogue a brace that is no placeholder stands twice.
    remedy = [step.replace("{{", "{").replace("}}", "}") for step in text.remedy if step != repair]
    steps = [*([repair] if text.repair else []), *remedy]
    where = "In a maintenance window, by hand" if text.maintenance else "Next"
    lines = [f"\n### {row}\n", f"*{text.severity}{unknown}*: {text.why} [{text.source}]\n"]
    return "\n".join([*lines, *([f"{where}:\n", *(f"    {step}" for step in steps)] if steps else [])]) + "\n"


def _place(place: Elsewhere) -> str:
    rules = ", ".join(f"`explain {rule}`" for rule in place.rules)
    named = {"before any host is asked": rules, "stage": place.stage, "gates of an activation": place.gate}
    return "; ".join(f"{when}: {what}" for when, what in named.items() if what)
