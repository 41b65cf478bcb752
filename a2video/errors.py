"""What ends a command other than its success: mistakes in what a user gave us, and signals."""


class InputError(ValueError):
    """A mistake in a file, list or option of the user's.

    The message is one sentence that names the culprit and the remedy; the command line prints it without a traceback.
    Takes a single string, so that it survives the way back from a data loader's worker process.
    """


class Interrupted(Exception):
    """A run that a signal has ended in good order.

    Args:
        message: one sentence that says how to go on; empty on the ranks that say nothing.
        status: of the process.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
