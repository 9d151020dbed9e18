"""Programs that measure errors and make the documentation; they are not part of the package.

- `site`: the generated pages of the documentation, and a look at all of them in a browser.
- `accuracy`: the error of every pair against reference values, in tools/accuracy.json.
- `quadrature_accuracy`: errors of integrals and their gradients at random parameters, by pair.
- `random_cells`: random parameters over eight decades for every pair, plain or under maps.
- `elbo_guides`: every autoguide against every prior, beside Pyro's Trace_ELBO.
"""
