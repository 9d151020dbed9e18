"""`python -m pyro_kl_cli` is `pyro-kl`."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
