"""Cells that are text: which words mean a missing value, and text as levels or numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Cells, in lower case and without the space around them, that mean a missing value.
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?", ".")


def spellings(words: Iterable[str]) -> list[str]:
    """Return words as files spell them: in either case, and with a space on a side."""
    cases = {case for word in words for case in (word, word.upper(), word.title())} | {"NaN"}
    return sorted(
        {f"{left}{word}{right}" for word in cases for left in ("", " ") for right in ("", " ")}
    )


def cleaned(array: pa.Array, missing: Iterable[str]) -> pa.Array:
    """Return strings without the space around them, and null for the words that mean missing."""
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    words = pa.array(list(missing), pa.string())
    return pc.if_else(pc.is_in(pc.utf8_lower(text), value_set=words), None, text)


def coded(array: pa.Array, missing: Iterable[str]) -> tuple[list[str | None], np.ndarray]:
    """Return the distinct texts of a column, and which of them each row has (-1: missing)."""
    if pa.types.is_dictionary(array.type) and len(array.dictionary) > len(array):
        array = array.dictionary_decode()  # most of its texts are those of other chunks
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    texts = cleaned(array.dictionary, missing).to_pylist()
    codes = pc.fill_null(array.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return texts, codes


def level_counts(array: pa.Array, missing: Iterable[str]) -> dict[str | None, int]:
    """Return how many rows have each text; None stands for a missing one."""
    texts, codes = coded(array, missing)
    counts: dict[str | None, int] = {None: int((codes < 0).sum())}
    for text, count in zip(
        texts, np.bincount(codes[codes >= 0], minlength=len(texts)), strict=True
    ):
        counts[text] = counts.get(text, 0) + int(count)
    return counts


def numbers(array: pa.Array, missing: Iterable[str] = MISSING) -> np.ndarray:
    """Return a column as numbers, nan where it is missing; a view where the buffer allows it.

    Raises:
        pyarrow.ArrowInvalid: a text is not a number.
    """
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if is_text(array.type):
        array = cleaned(array, missing).cast(pa.float64())
    elif pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    elif not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        array = array.cast(pa.float64(), safe=False)
    if array.null_count and pa.types.is_integer(array.type):
        array = array.cast(pa.float64(), safe=False)
    return array.to_numpy(zero_copy_only=False)


def is_text(kind: pa.DataType) -> bool:
    """Whether the cells of a column are text, coded or not."""
    if pa.types.is_dictionary(kind):
        return True
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
