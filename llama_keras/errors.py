"""The errors that people meet: a wrong input, a package that is missing, a server that is down."""


class InputError(ValueError):
    """A value or file from outside is not what was expected; the message says what to do."""


class MissingDependencyError(ImportError):
    """An optional package is not installed; the message holds the install command."""


class UnavailableError(RuntimeError):
    """Something outside, such as a server, failed for now; what was done is kept to go on from."""
