"""Why the server does not run, in words for the operator."""


class LaunchError(Exception):
    """The launcher prints the message and exits with status 1."""
