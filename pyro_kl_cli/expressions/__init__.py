"""Distributions written as Python would write them, parsed and built here, never evaluated.

`syntax` parses and bounds the text, without torch; `values` has the numbers and tensors, `names`
the classes that a name may mean, `call` calls a constructor and puts its errors in words, and
`build` puts them together: `build("Gamma(2, 1)")` is the distribution.
"""
