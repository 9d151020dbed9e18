"""The error of a table that cannot be used."""


class TableError(ValueError):
    """The table cannot be used; the message is one line that says why and what to do."""
