"""The one exception for mistakes in what a user gave us."""


class InputError(ValueError):
    """A mistake in a file, list or option of the user's.

    The message is one sentence that names the culprit and the remedy; the command line prints it without a traceback.
    Takes a single string, so that it survives the way back from a data loader's worker process.
    """
