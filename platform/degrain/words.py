"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`; `noun` is the singular of a word with a plain plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
