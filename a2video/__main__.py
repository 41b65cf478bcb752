"""`python -m a2video` is the command `a2video`."""

from a2video.cli import main

if __name__ == "__main__":
    main()
