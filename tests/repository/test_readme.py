"""The README's numbers are printed by the README's code."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_first_example_prints_what_it_says():
    """The first code block prints the block that follows it, to the last digit."""
    text = README.read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    expected = re.search(r"```text\n(.*?)```", text, re.DOTALL)[1]
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == expected


def test_pictures_are_there():
    """A picture that the README shows is in the repository."""
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README.read_text()):
        assert (README.parent / picture).is_file(), picture
