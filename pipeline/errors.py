"""The pipeline's own refusals: one line that says what, got, expected, next step."""


class Refusal(ValueError):
    """Something asked for can't be done. Its text is shown to the user as it stands."""
