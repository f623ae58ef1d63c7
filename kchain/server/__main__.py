"""`python -m kchain.server`: serve one root until told to stop."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kchain.errors import KchainError
from kchain.server import launch


def main() -> int:
    """Serve; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kchain.server", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the server's folder")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--key-file", type=Path, help="default: key in the root")
    parser.add_argument("--profile", choices=("machine", "like-kaggle"))
    parser.add_argument("--idle-seconds", type=float, help="leave after so long without a request or a session")
    parser.add_argument("--until-eof", action="store_true", help="leave when stdin ends: when the starter is gone")
    options = parser.parse_args()
    try:
        from kchain.server.serve import serve

        key_file = options.key_file or options.root / launch.KEY
        leave = await_eof if options.until_eof else None
        serve(options.root, options.port, key_file, options.profile, options.idle_seconds, leave=leave)
    except KchainError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def await_eof() -> None:
    """Return at the end of stdin."""
    sys.stdin.buffer.read()


if __name__ == "__main__":
    sys.exit(main())
