"""Pictures of KL divergences, drawn by matplotlib.

Every function takes its data, then options by keyword, and returns the `matplotlib.axes.Axes` that
it drew on: `ax`, or a new one by `matplotlib.pyplot.subplots` where `ax` is None. A notebook shows
the new one; `axes.figure.savefig("picture.png")` writes it. matplotlib is imported when a picture
is drawn, not before.
"""

from .coefficients import coefficients
from .convergence import convergence
from .divergences import divergences
from .elbo_terms import elbo_terms
from .kl_integrand import kl_integrand
from .kl_matrix import kl_matrix
from .posterior_sites import posterior_sites
from .prior_posterior import prior_posterior
from .ranks import ranks
from .reward_against_kl import reward_against_kl
from .site_kls import site_kls
from .training import TrainingHistory, training
from .weights_tail import weights_tail

__all__ = [
    "TrainingHistory",
    "coefficients",
    "convergence",
    "divergences",
    "elbo_terms",
    "kl_integrand",
    "kl_matrix",
    "posterior_sites",
    "prior_posterior",
    "ranks",
    "reward_against_kl",
    "site_kls",
    "training",
    "weights_tail",
]
