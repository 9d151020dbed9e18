"""
Reward against the KL to the reference policy
=============================================

A policy that is trained for a reward moves away from its reference, and pays for it with
KL(policy || reference). The optimal policies are known where all answers can be enumerated: they
are the reference times exp(reward / beta), normalised. No policy has a larger expected reward at
the same KL.
"""

import torch

import pyro_kl
from pyro_kl import plot

torch.manual_seed(0)
reference = torch.randn(50)  # logits of 50 answers
reward = torch.randn(50)


def place(logits):
    """KL to the reference and expected reward of a policy."""
    kl = pyro_kl.policy.exact_kl(logits, reference)
    return float(kl), float((logits.softmax(-1) * reward).sum())


betas = torch.logspace(-1.0, 1.5, 60)
curve = [place(pyro_kl.policy.optimum(reference, reward, float(beta))[0]) for beta in betas]
optimum = [kl for kl, _ in curve], [expected for _, expected in curve]

# %%
# Best of n is a common way to do without training: draw n answers from the reference, and keep the
# one of the largest reward. Its probabilities are differences of powers of the reference's
# cumulative distribution over the answers, sorted by their reward. For a small n it is close to
# the optimum.

order = reward.argsort()
cumulative = reference.softmax(-1)[order].double().cumsum(-1)
numbers = (2, 4, 16, 64)
best_of = []
for n in numbers:
    mass = torch.diff(cumulative**n, prepend=torch.zeros(1, dtype=torch.float64))
    logits = torch.empty(50, dtype=torch.float64)
    logits[order] = mass.clamp(min=1e-300).log()
    best_of.append(place(logits.float()))

axes = plot.reward_against_kl(
    [kl for kl, _ in best_of],
    [expected for _, expected in best_of],
    labels=[f"best of {n}" for n in numbers],
    optimum=optimum,
)
