"""The unit of a release, read back by a second implementation of systemd's quoting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.errors import SettingsError
from sparkfleet.release.unit import docker_run, serve_unit, systemd_quote
from sparknode.activate.steps import STOP_MARGIN_S
from tests.unit.sparkfleet.release import systemd
from tests.unit.sparkfleet.release.combos import CURRENT, compiled, rendered

ONE_LINE = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))


@given(st.lists(ONE_LINE, min_size=1, max_size=5))
def test_words_come_back_as_they_went_in(words: list[str]) -> None:
    assert systemd.words(" ".join(systemd_quote(word) for word in words)) == words


@pytest.mark.parametrize("word", ["a\nb", "a\rb", "a\0b"])
def test_what_a_unit_cannot_hold_is_refused(word: str) -> None:
    with pytest.raises(SettingsError, match="line break"):
        systemd_quote(word)


def test_execstart_is_the_release_argv_of_every_combination() -> None:
    for outcome in rendered().values():
        argv = outcome.argv
        assert systemd.exec_start(outcome.release.unit) == ["/usr/bin/docker", *argv[1:]]


def test_an_awkward_override_survives_the_unit() -> None:
    outcome = compiled(chat_template='/t/%h $HOME "x" \\ ünï.jinja')
    assert '/t/%h $HOME "x" \\ ünï.jinja' in systemd.exec_start(outcome.release.unit)


def test_the_limits_of_the_unit_leave_room_for_each_other() -> None:
    release = compiled("agentic", CURRENT).release
    settings = dict(line.split("=", 1) for line in release.unit.splitlines() if "=" in line and line[0].isupper())
    timing = release.timing
    assert settings["Restart"] == "always"
    assert int(settings["TimeoutStopSec"]) > timing.docker_stop_s > timing.shutdown_timeout_s
    # What comes after a stop that timed out ends before the node gives up on the whole of it.
    assert 0 < int(settings["ExecStopPost"].split()[1]) < STOP_MARGIN_S
    assert int(settings["TimeoutStartSec"]) >= timing.load_deadline_s >= 1200
    # Nothing but another start brings an engine back, so there is no last one; each comes later than the one before.
    assert settings["StartLimitIntervalSec"] == "0"
    assert int(settings["RestartSec"]) <= 10 < int(settings["RestartMaxDelaySec"]) <= 600
    assert int(settings["RestartSteps"]) > 3
    assert "docker.service" in settings["Wants"].split()
    assert "Requires" not in settings
    after = {name for line in release.unit.splitlines() if line.startswith("After=") for name in line[6:].split()}
    assert {"docker.service", "sparkfleet-activate.service", "nvidia-cdi-refresh.service"} < after
    assert "--restart" not in docker_run(release)


def test_caches_are_dropped_before_the_memory_is_measured_and_only_when_asked() -> None:
    release = compiled("agentic", CURRENT).release
    asked = serve_unit(release, drop_caches=True)
    steps = [line for line in asked.splitlines() if line.startswith("ExecStartPre=")]
    assert [word in step for word, step in zip(("rm --force", "drop_caches", "memory-gate"), steps, strict=True)] == [
        True
    ] * 3
    assert "drop_caches" not in serve_unit(release)
