"""systemd's reading of ExecStart=, written from systemd.service(5) and systemd.syntax(7), for tests alone."""

from __future__ import annotations

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "s": " "}


def exec_start(unit: str) -> list[str]:
    """The words that systemd would execute; specifiers and variables must be escaped, or this fails."""
    lines = unit.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("ExecStart="))
    text = lines[first].removeprefix("ExecStart=")
    while text.endswith("\\"):
        first += 1
        text = text[:-1] + " " + lines[first]
    return words(text)


def words(text: str) -> list[str]:
    found: list[str] = []
    position = 0
    while position < len(text):
        if text[position] in " \t":
            position += 1
            continue
        word, position = _word(text, position)
        found.append(_expanded(word))
    return found


def _word(text: str, position: int) -> tuple[str, int]:
    word = ""
    quote = ""
    while position < len(text):
        character = text[position]
        if quote:
            if character == quote:
                quote = ""
            elif character == "\\":
                position += 1
                word += _unescaped(text[position])
            else:
                word += character
        elif character in " \t":
            break
        elif character in "\"'":
            quote = character
        elif character == "\\":
            position += 1
            word += _unescaped(text[position])
        else:
            word += character
        position += 1
    assert not quote, f"unbalanced quote in {text!r}"
    return word, position


def _unescaped(character: str) -> str:
    if character in ESCAPES:
        return ESCAPES[character]
    assert character in "\\\"'", f"unknown escape \\{character}"
    return character


def _expanded(word: str) -> str:
    """Undo %% and $$; a single one would be a specifier or a variable."""
    result = ""
    position = 0
    while position < len(word):
        character = word[position]
        if character in "%$":
            assert word[position : position + 2] == character * 2, f"{character} is not doubled in {word!r}"
            position += 1
        result += character
        position += 1
    return result
