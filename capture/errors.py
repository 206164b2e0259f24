"""The one error that capture raises for anything a user handed in: what, got, expected, next step."""


class MediaError(ValueError):
    """A file, camera or output that can't be used. Its text is one line and is shown to the user as it stands."""
