"""The two errors that people meet: a wrong input, a package that is missing."""


class InputError(ValueError):
    """A value or file from outside is not what was expected; the message says what to do."""


class MissingDependencyError(ImportError):
    """An optional package is not installed; the message holds the install command."""
