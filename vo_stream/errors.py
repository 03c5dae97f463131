"""The package's exceptions: one root, one child per room that can be set up wrongly.

A bad frame is never one of these: it is a returned `values.Status`.
"""


class VoStreamError(Exception):
    """Something the user can mend. The message is one line: which file or key, and what to do."""


class ConfigError(VoStreamError):
    """A setting is unknown, of the wrong type or out of its range."""


class SourceError(VoStreamError):
    """A recording cannot be opened or read."""


class NetError(VoStreamError):
    """A motion backend cannot be loaded or run here."""


class LinkError(VoStreamError):
    """The way to the background adjuster cannot be set up."""
