"""`python -m pyro_kl` is `pyro-kl`, which answers faster: this one imports torch first."""

import sys

from pyro_kl_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
