"""Reading a shell script as far as it starts an engine: its commands with variables, arrays and continuations filled.

Nothing is executed. What only a shell would know (the output of a command, a variable of its environment, one that is
set in a branch) stays in the words as a reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sparkfleet.interop.served import MARK, cannot_carry
from sparkfleet.interop.variables import closing, reference_at, value_of

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_CONTINUED = re.compile(r"\\[ \t]*\r?\n")
_HEREDOC = re.compile(r"<<(-?)[ \t]*(['\"]?)([\w.-]+)\2")
_LAST_ARRAY = re.compile(r"\{([A-Za-z_]\w*)\[[@*]\](?::?[-+].*)?\}", re.DOTALL)
_OPENERS = {"if": "if", "for": "loop", "while": "loop", "until": "loop", "case": "case", "{": "group", "select": "loop"}
_CLOSERS = frozenset(("fi", "done", "esac", "}"))
_LEADING = frozenset(("then", "do", "else", "elif", "!", "time", *_OPENERS, *_CLOSERS))
_DECLARING = frozenset("export declare typeset local readonly".split())
# Shell options and tests that decide nothing about the command beside them.
_SILENT = frozenset("set shopt : true exit return trap wait cd [ [[ test break continue shift".split())


@dataclass(frozen=True)
class Command:
    """Words with their variables filled; `inside` are the loops and branches around it, `after` what ended it."""

    words: list[str]
    env: dict[str, str]
    inside: tuple[str, ...]
    after: str
    redirected: bool = False


@dataclass
class Script:
    """The commands of a script, and the variables that it set or exported while it was read."""

    values: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)


@dataclass
class _Reader:
    text: str
    script: Script
    at: int = 0
    arrays: dict[str, list[str]] = field(default_factory=dict)
    # The words of the command, with the word that is being read last; a word of None has not begun.
    words: list[str] = field(default_factory=list)
    word: str | None = None
    blocks: list[str] = field(default_factory=list)
    discard_next: bool = False
    redirected: bool = False
    vanishing: bool = False
    heredocs: list[tuple[str, bool]] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.word = (self.word or "") + text

    def end_word(self) -> None:
        if self.word is None:
            return
        if self.discard_next:
            self.discard_next = False
        else:
            self.words.append(self.word)
        self.word = None

    def add_split(self, value: str) -> None:
        """A variable outside quotes gives as many words as it holds."""
        parts = value.split() if MARK not in value else [value]
        if value[:1].isspace():
            self.end_word()
        for number, part in enumerate(parts):
            if number:
                self.end_word()
            self.add(part)
        if parts and value[-1:].isspace():
            self.end_word()

    def read(self) -> None:
        while self.at < len(self.text):
            self.step()
        self.end_command("\n")

    def step(self) -> None:
        text, at, char = self.text, self.at, self.text[self.at]
        if char == "\\":
            continued = _CONTINUED.match(text, at)
            if continued is None:
                self.add(text[at + 1 : at + 2])
            self.at = continued.end() if continued else at + 2
        elif char == "'":
            end = self.find("'", at + 1)
            self.add(text[at + 1 : end])
            self.at = end + 1
        elif char == '"':
            self.quoted()
        elif char == "`":
            end = self.find("`", at + 1)
            # `# …` is how people comment inside a continued command.
            if not text[at + 1 : end].lstrip().startswith("#"):
                self.add(f"{MARK}({text[at + 1 : end]})")
            self.at = end + 1
        elif char == "$":
            self.expand(inside_quotes=False)
        elif char == "#" and self.word is None:
            end = text.find("\n", at)
            self.at = end if end >= 0 else len(text)
        elif char in " \t\r":
            self.end_word()
            self.at += 1
        elif char == "(" and self.word and _ASSIGNMENT.fullmatch(self.word):
            self.array()
        elif char in "\n;&|()":
            self.operator()
        elif char in "<>":
            self.redirection()
        else:
            self.add(char)
            self.at += 1

    def find(self, quote: str, start: int) -> int:
        end = self.text.find(quote, start)
        if end < 0:
            raise cannot_carry("the command cannot be read: a quote is not closed", "balanced quotes")
        return end

    def quoted(self) -> None:
        self.add("")
        self.at += 1
        while self.text[self.at : self.at + 1] != '"':
            char = self.text[self.at : self.at + 1]
            if not char:
                raise cannot_carry("the command cannot be read: a quote is not closed", "balanced quotes")
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`", "\n"):
                self.add(self.text[self.at + 1 : self.at + 2].replace("\n", ""))
                self.at += 2
            elif char == "$":
                self.expand(inside_quotes=True)
            elif char == "`":
                end = self.find("`", self.at + 1)
                self.add(f"{MARK}({self.text[self.at + 1 : end]})")
                self.at = end + 1
            else:
                self.add(char)
                self.at += 1
        self.at += 1
        if self.vanishing and self.word == "":
            self.word = None
        self.vanishing = False

    def expand(self, inside_quotes: bool) -> None:
        if not inside_quotes and self.text[self.at + 1 : self.at + 2] == "'":
            end = self.find("'", self.at + 2)
            self.add(self.text[self.at + 2 : end].encode().decode("unicode_escape"))
            self.at = end + 1
            return
        found = reference_at(self.text, self.at)
        if found is None:
            self.add("$")
            self.at += 1
            return
        reference, self.at = found
        array = _LAST_ARRAY.fullmatch(reference)
        if reference in ("{@}", "{*}"):
            # A script that is given nothing more; in quotes it is no word at all, not an empty one.
            self.vanishing = inside_quotes and self.word == ""
            return
        if array is not None and array[1] in self.arrays:
            for number, item in enumerate(self.arrays[array[1]]):
                if number:
                    self.end_word()
                self.add(item)
            self.vanishing = not self.arrays[array[1]] and self.word == ""
            return
        value = value_of(reference, self.script.values, self.fill)
        if inside_quotes:
            self.add(value)
        else:
            self.add_split(value)

    def fill(self, word: str) -> str:
        inner = _Reader(f'"{word}"' if '"' not in word and "'" not in word else word, self.script, arrays=self.arrays)
        while inner.at < len(inner.text):
            inner.step()
        inner.end_word()
        return " ".join(inner.words)

    def array(self) -> None:
        assignment = _ASSIGNMENT.fullmatch(self.word or "")
        end = closing(self.text, self.at, "(", ")")
        inner = _Reader(self.text[self.at + 1 : end].replace("\n", " \n"), self.script, arrays=self.arrays)
        while inner.at < len(inner.text):
            if inner.text[inner.at] == "\n":
                inner.end_word()
                inner.at += 1
            else:
                inner.step()
        inner.end_word()
        if assignment is not None:
            kept = self.arrays.get(assignment[1], []) if assignment[2] else []
            self.arrays[assignment[1]] = [*kept, *inner.words]
            if self.branched():
                self.arrays[assignment[1]] = [f"{MARK}{{{assignment[1]}}}"]
        self.word = None
        self.at = end + 1

    def redirection(self) -> None:
        heredoc = _HEREDOC.match(self.text, self.at)
        if self.word and self.word.isdigit():
            self.word = None
        self.end_word()
        self.redirected = True
        if heredoc and not self.text.startswith("<<<", self.at):
            self.heredocs.append((heredoc[3], bool(heredoc[1])))
            self.at = heredoc.end()
            return
        self.at = re.compile(r"[<>]+[&|]?").match(self.text, self.at).end()  # type: ignore[union-attr]
        self.discard_next = True

    def operator(self) -> None:
        found = re.compile(r"\n|&&|\|\||;;|[;&|()]").match(self.text, self.at)
        assert found is not None
        self.at = found.end()
        self.end_word()
        self.end_command(found[0])
        if found[0] == "\n":
            for word, tabs in self.heredocs:
                self.skip_heredoc(word, tabs)
            self.heredocs.clear()

    def skip_heredoc(self, word: str, tabs: bool) -> None:
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            line = self.text[self.at : end if end >= 0 else len(self.text)]
            self.at = end + 1 if end >= 0 else len(self.text)
            if (line.lstrip("\t") if tabs else line) == word:
                return

    def end_command(self, operator: str) -> None:
        self.end_word()
        words, redirected = self.words, self.redirected
        self.words, self.redirected, self.discard_next = [], False, False
        if operator == "(" and len(words) == 1:
            # «name ()» begins a function; its body is read like the rest.
            return
        while words and words[0] in _LEADING:
            first = words.pop(0)
            if first in _OPENERS:
                self.blocks.append(_OPENERS[first])
            elif first in _CLOSERS and self.blocks:
                self.blocks.pop()
        if words[:1] == ["function"]:
            self.blocks.append("group")
            return
        if self.blocks[-1:] in (["loop"], ["case"]) and len(words) > 1 and words[1] == "in":
            self.forget(words[0])
            return
        env: dict[str, str] = {}
        while words and (found := _ASSIGNMENT.match(words[0])):
            env[found[1]] = words.pop(0)[found.end() :]
        if not words:
            self.assign(env)
        elif words[0] in _DECLARING:
            given = {found[1]: word[found.end() :] for word in words[1:] if (found := _ASSIGNMENT.match(word))}
            self.assign(given)
            if words[0] == "export":
                names = [*given, *(word for word in words[1:] if word in self.script.values)]
                self.script.exported |= {name: self.script.values[name] for name in names}
        elif words[0] not in _SILENT:
            command = Command(words, env, tuple(self.blocks), operator, redirected)
            self.script.commands.append(command)

    def assign(self, given: dict[str, str]) -> None:
        for name, value in given.items():
            if self.branched():
                self.forget(name)
            else:
                self.script.values[name] = value

    def forget(self, name: str) -> None:
        self.script.values[name] = f"{MARK}{{{name}}}"

    def branched(self) -> bool:
        return any(block != "group" for block in self.blocks)


def read_script(text: str, values: dict[str, str] | None = None) -> Script:
    """Read the commands of a script; raises SettingsError when its quotes do not close."""
    script = Script(values=dict(values or {}))
    _Reader(text, script).read()
    return script
