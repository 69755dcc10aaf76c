"""The one fact: everything any check or plan asks of a node, in one round trip or, at the first contact, two."""

from __future__ import annotations

import base64
import json
from typing import Any

import gevent
from pyinfra.api import FactBase, Host, State
from pyinfra.api.facts import get_facts
from pyinfra.context import ctx_host

from sparkfleet.nodeprogram import INSTALL_PATH, program, program_sha256

OTHER_PROGRAM = "sparknode is missing or of another version"


class NodeProbe(FactBase[dict[str, Any]]):
    """The document that `sparknode probe` prints, from the installed program when it is this controller's."""

    def command(self) -> str:
        return (
            f"if printf '%s  %s\\n' {program_sha256()} {INSTALL_PATH} | sha256sum --check --status 2>/dev/null; then "
            f"{INSTALL_PATH} probe; else echo '{OTHER_PROGRAM}'; fi"
        )

    @staticmethod
    def default() -> dict[str, Any]:
        return {"error": "the node's probe gave no answer"}

    def process(self, output: list[str]) -> dict[str, Any]:
        if output[-1] == OTHER_PROGRAM:
            return {"error": OTHER_PROGRAM}
        try:
            document = json.loads(output[-1])
        except ValueError:
            document = None
        if not isinstance(document, dict) or document.get("schema") != 1:
            return {"error": f"the node's probe answered {output[-1][:120]!r}"}
        return document


class FirstProbe(NodeProbe):
    """The same from a program that arrives on standard input, so that a first contact needs nothing but python3."""

    def command(self) -> str:
        return 't=$(mktemp) && base64 -d >"$t" && python3 "$t" probe; s=$?; rm -f "$t"; exit $s'


def ask_all(state: State) -> dict[str, dict[str, Any]]:
    """Return every connected host's probe, all asked at the same time: the waves depend on how each of them stands.

    The program is some 100 kB, so it travels only to hosts that do not have it.
    """
    answers = get_facts(state, NodeProbe)
    new = [host for host, answer in answers.items() if answer.get("error") == OTHER_PROGRAM]
    if new:
        text = base64.encodebytes(program()).decode().splitlines()
        asked = {host: state.pool.spawn(_first_probe, host, text) for host in new}
        gevent.joinall(list(asked.values()))
        answers.update({host: greenlet.get() for host, greenlet in asked.items()})
    return {host.name: answer for host, answer in answers.items()}


def _first_probe(host: Host, program_text: list[str]) -> dict[str, Any]:
    with ctx_host.use(host):
        answer: dict[str, Any] = host.get_fact(FirstProbe, _stdin=program_text)
    return answer
