"""What every result has: its table as text, in a notebook, under rich, and as a data frame."""
