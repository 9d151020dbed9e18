"""Distributions under maps: rules, maps, and integrals over the line of the base."""
