"""What each combination runs, against the files that a reviewer read.

Write them anew with `python -m tests.unit.controller.golden`.
"""

from __future__ import annotations

from tests.unit.controller.golden import FOLDER, files


def test_every_combination_renders_what_its_golden_file_says() -> None:
    now = files()
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.txt")}
    assert sorted(now) == sorted(written), "run python -m tests.unit.controller.golden and review the difference"
    changed = [name for name in now if now[name] != written[name]]
    assert not changed, (
        f"{len(changed)} files differ; run python -m tests.unit.controller.golden and review: {changed[:5]}"
    )
