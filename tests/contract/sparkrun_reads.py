"""Prints what the installed sparkrun makes of recipes, one JSON document a file. Runs inside an environment of
`real_sparkrun.py`, without a network: nothing here loads a registry."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    bootstrap = importlib.import_module("sparkrun.core.bootstrap")
    recipes = importlib.import_module("sparkrun.core.recipe").Recipe
    validation = importlib.import_module("sparkrun.core.validation")
    known = bootstrap.init_sparkrun()
    for path in sys.argv[1:]:
        recipe = recipes.load(path)
        runtime = bootstrap.get_runtime(recipe.runtime, known)
        detect = getattr(runtime, "detect_spec_config_draft", lambda _: (None, None))
        issues = validation.validate_recipe(recipe, v=known)
        document = {
            "issues": [[issue.severity, issue.code] for issue in issues],
            "drafter": list(detect(recipe)),
            "command": recipe.render_command(recipe.build_config_chain()),
        }
        print(json.dumps(document))


if __name__ == "__main__":
    main()
