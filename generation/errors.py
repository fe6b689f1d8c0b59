"""The one exception for input that people can mend: what is wrong, what was expected, what to do."""


class InputError(ValueError):
    """A user's file or setting cannot be used; the message is one clear sentence for the person who gave it."""


def quoted(value: object, most: int = 80) -> str:
    """A value out of somebody's file as a sentence shows it: on one line, and short.

    Args:
        most: characters.
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
