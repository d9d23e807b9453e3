"""What goes wrong with packs."""


class PackError(RuntimeError):
    """A pack cannot be made, or cannot be used; the message says why and what to do."""
