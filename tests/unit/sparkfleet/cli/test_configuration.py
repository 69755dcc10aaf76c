"""What is set and by whom, what fits together, and where secrets may come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparkfleet import secrets
from sparkfleet.errors import SettingsError
from sparkfleet.inventory.settings import parse_settings
from tests.plan.harness import FakeFleet, own_command

BASE = {"model": "m", "image_tag": "t", "profile": "p", "hardware": "h", "lock_file": "lock.json"}
TOKEN = "hf_" + "a1" * 17


def rows(text: str) -> dict[str, tuple[str, str]]:
    found = {}
    for line in text.splitlines()[1:]:
        key, value, *origin = [cell for cell in line.split("  ") if cell.strip()]
        found[key] = (value.strip(), origin[-1].strip())
    return found


def test_config_names_who_set_each_value() -> None:
    done = own_command("config", "spark-04.local", "--data", "profile=production")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert found["overrides"] == ('{"max_num_seqs": 16}', "the host in inventory/prod.py")
    assert found["profile"] == ('"production"', "--data")
    assert found["image_tag"][1] == "group_data/all.py"
    assert found["soak_s"][1] == "default"
    assert len([one for one in found.values() if one[1] != "default"]) < 10
    assert len(found) > 30


def test_config_refuses_an_unknown_host_with_the_nearest() -> None:
    done = own_command("config", "spark-4.local")
    assert done.returncode == 2
    assert "did you mean 'spark-04.local'?" in done.stderr


def test_validate_names_every_host_that_does_not_compile(tmp_path: Path) -> None:
    fleet = FakeFleet(tmp_path, ["spark-1", "spark-2"])
    fleet.host_data["spark-2"] = {"image_tag": "2026-06-11-pr41073"}
    done = own_command("validate", str(fleet.write()))
    assert done.returncode == 2
    assert done.stderr.startswith("problem: @fake/spark-2: ")
    assert "did you mean '2026-06-11-pr41703'?" in done.stderr
    (tmp_path / "lock.json").write_text(json.dumps({"schema": 9}))
    assert own_command("validate", str(fleet.write())).returncode == 2


def test_validate_of_the_sample_names_what_a_first_deploy_needs() -> None:
    done = own_command("validate")
    assert done.returncode == 0, done.stderr
    assert "0 problems, and 3 to settle before the first deploy" in done.stdout
    for words in ("terms_accepted", "api_key_file", "python -m sparkfleet lock"):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fleet = [", "SyntaxError"),
        ("fleet = nosuch", "fleet.py:1: NameError: name 'nosuch' is not defined"),
        ("import nosuch", "ModuleNotFoundError"),
        ('fleet = [("a",)]', "IndexError"),
        ("fleet = 1 / 0", "ZeroDivisionError"),
        ("", "no host is in it"),
        ('hosts = "spark-1"', "no host is in it"),
    ],
)
def test_an_inventory_that_cannot_be_run_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "fleet.py"
    path.write_text(text + "\n")
    done = own_command("validate", str(path))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "next:" in done.stderr


def test_a_folder_is_no_inventory(tmp_path: Path) -> None:
    done = own_command("config", "spark-1", "--inventory", str(tmp_path))
    assert done.returncode == 2
    assert "is a folder" in done.stderr


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ("image_tag=2026-06-11-pr41703", "image_tag", '"2026-06-11-pr41703"'),
        ("image_tag=0622", "image_tag", '"622"'),
        ('image_tag="1e5"', "image_tag", '"1e5"'),
        ("watch=false", "watch", "false"),
        ("soak_s=60", "soak_s", "60"),
        ("soak_s=null", "soak_s", "null"),
        ('batch_size=[1, "25%"]', "batch_size", '[1, "25%"]'),
    ],
)
def test_data_is_read_as_pyinfra_reads_it(given: str, key: str, value: str) -> None:
    done = own_command("config", "spark-04.local", "--data", given)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[key][0] == value


@pytest.mark.parametrize("given", ["soak_s=yes", "soak_s=true", "sync_parallel=true", "soak_s=12:30", "nonsense", "=1"])
def test_data_that_means_something_else_is_refused(given: str) -> None:
    done = own_command("config", "spark-04.local", "--data", given)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [("image_tag", 20260611, "20260611"), ("roll_forward", 12345, "0000000000012345"), ("image_line", None, None)],
)
def test_what_the_command_line_made_a_number_is_a_text_again(key: str, value: object, found: object) -> None:
    assert getattr(parse_settings("a", {**BASE, key: value}), key) == found


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("image_tag", 1e5, 'KEY="VALUE"'),
        ("image_tag", True, 'KEY="VALUE"'),
        ("image_tag", None, "no image_tag is set"),
        ("roll_forward", "2026-06-11", "should match pattern"),
        ("roll_forwards", "x", "did you mean 'roll_forward'?"),
        ("api_key_file", TOKEN, "looks like a token"),
        ("overrides", {"seed": TOKEN}, "looks like a token"),
        ("tool_index", f"https://user:{TOKEN[3:]}@index.example/simple", "looks like a token or a password"),
        ("tool_index", "10.0.0.5/simple", "tool_index is"),
    ],
)
def test_what_cannot_be_meant_is_refused(key: str, value: object, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings("spark-1", {**BASE, key: value})
    assert says in caught.value.text()
    assert TOKEN not in caught.value.text()


def test_a_secret_comes_from_a_file_or_a_command(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    for given in ({"HF_TOKEN_FILE": str(path)}, {"HF_TOKEN_COMMAND": f"cat {path}"}):
        environment = dict(given)
        secrets.provide(environment)
        assert environment["HF_TOKEN"] == TOKEN
    own = {"HF_TOKEN": "mine", "HF_TOKEN_FILE": str(path)}
    secrets.provide(own)
    assert own["HF_TOKEN"] == "mine"
    empty = {"HF_TOKEN": "", "HF_TOKEN_FILE": str(path)}
    secrets.provide(empty)
    assert empty["HF_TOKEN"] == TOKEN


@pytest.mark.parametrize(
    "given",
    [{"HF_TOKEN_FILE": "/no/such"}, {"HF_TOKEN_FILE": "/dev/null"}, {"HF_TOKEN_COMMAND": "sh -c 'echo hf_x; exit 3'"}],
)
def test_a_secret_that_does_not_come_is_refused_without_its_text(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        secrets.provide(given)
    assert "hf_x" not in caught.value.text()
    assert "gave no secret" in caught.value.text()
