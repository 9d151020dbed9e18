"""What the documentation site has besides the pages that people write: docs/conf.py calls it."""
