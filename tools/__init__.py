"""Programs that make the tables of docs/ and measure errors; they are not part of the package.

- `tables`: docs/pairs.md and docs/classes.md, from the registry (`make docs`).
- `accuracy`: the error of every pair against reference values, in tools/accuracy.json.
- `quadrature_accuracy`: errors of integrals and their gradients at random parameters, by pair.
- `random_cells`: random parameters over eight decades for every pair, plain or under maps.
- `elbo_guides`: every autoguide against every prior, beside Pyro's Trace_ELBO.
"""
