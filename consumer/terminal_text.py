"""Text from elsewhere, made safe for a terminal.

Ids, topics, host names and messages come from records, brokers and peers. They may hold sequences that a terminal
obeys, or marks that reverse the order in which text is read.
"""


def replace_controls(line: str) -> str:
    """The line with a replacement character for each one that is not printable, line breaks included."""
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def escape_json(document: str) -> str:
    """The same JSON, on one line, with an escape for each character that is not printable."""
    if document.isprintable():
        return document
    return "".join(character if character.isprintable() else _escape(character) for character in document)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2))
