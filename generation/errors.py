"""The one exception for input that people can mend: what is wrong, what was expected, what to do."""


class InputError(ValueError):
    """A user's file or setting cannot be used; the message is one clear sentence for the person who gave it."""
