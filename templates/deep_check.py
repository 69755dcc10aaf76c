"""Runs inside an image, whose Transformers is not the controller's: do configuration, tokenizer and processor load?

config.json is read as JSON where a value is compared: since Transformers 5.23 some attributes of a loaded Gemma 4
configuration raise when they are read.
"""

import json
import pathlib
import sys

import transformers

expected = json.loads(sys.argv[1])
problems, loaded = [], []


def attempt(what, kind, folder, options):
    try:
        loaded.append(f"{what} {type(getattr(transformers, kind).from_pretrained(folder, **options)).__name__}")
    except Exception as error:
        problems.append(f"{what}: {type(error).__name__}: {error}")


for part in expected["parts"]:
    folder = pathlib.Path(part["path"])
    options = {"trust_remote_code": part["trust_remote_code"], "local_files_only": True}
    attempt("config", "AutoConfig", folder, options)
    if part["tokenizer"]:
        attempt("tokenizer", "AutoTokenizer", folder, options)
    if part["processor"]:
        attempt("processor", "AutoProcessor", folder, options)
    if part["eos_token_ids"]:
        found = json.loads((folder / "generation_config.json").read_text()).get("eos_token_id")
        found = found if isinstance(found, list) else [found]
        if sorted(found, key=str) != sorted(part["eos_token_ids"], key=str):
            problems.append(f"generation_config.json: eos_token_id is {found}, expected {part['eos_token_ids']}")

print(json.dumps({"transformers": transformers.__version__, "loaded": loaded, "problems": problems}))
sys.exit(1 if problems else 0)
