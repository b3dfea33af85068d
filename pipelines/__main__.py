"""`python -m pipelines COMMAND`: the command line; parser.py says what it understands.

Exit codes: 0 done; 1 a fault of ours; 2 a mistake in params or input; 3 refused by a verdict; 130 interrupted
(what was done stays done).
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from pathlib import Path

from pipelines.parser import parser

NAMED = {
    errno.ENOENT: "it is not there; name one that is",
    errno.ENOTDIR: "a part of this path is a file, not a folder; name another one",
    errno.EISDIR: "it is a folder, where a file is wanted; name a file",
    errno.EEXIST: "it is there already; name another one",
    errno.ENAMETOOLONG: "no file can have so long a name; name another one",
}
"""What is wrong with a path that was given."""


def main(words: list[str] | None = None) -> int:
    """Returns the exit code; a mistake of the user never shows a traceback."""
    gc.set_threshold(200_000, 20, 20)  # the usual 700 makes loading and parsing take a fifth longer
    arguments = parser().parse_args(words)
    from components.contracts import InputError, Refused

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what we started is ended
    try:
        code: int = arguments.does(arguments)
        sys.stdout.flush()
        return code
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except Refused as error:
        print(error, file=sys.stderr)
        return 3
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        from pipelines.stage import REMEDIES

        remedy = {**NAMED, **REMEDIES}.get(error.errno or 0)
        if remedy is None:
            raise
        print(f"{error.strerror} ({error.filename or Path.cwd()}): {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; run again to go on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
