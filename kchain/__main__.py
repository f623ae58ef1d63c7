"""`python -m kchain` is `kchain`."""

from kchain.cli import main

if __name__ == "__main__":
    main()
