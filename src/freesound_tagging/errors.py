"""The one exception for data that cannot be used, be it a table, an archive or a sound file."""


class DataError(ValueError):
    """Bad input: the message names the file, line or setting and says what is legal."""
