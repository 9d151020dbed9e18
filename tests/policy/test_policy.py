"""KL-penalised policies against exact enumeration."""

import math
import warnings

import numpy as np
import pytest
import torch

from pyro_kl import policy as P

torch64 = {"dtype": torch.float64}


def make(seed=0, k=6, spread=1.0):
    g = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(k, generator=g, **torch64)
    reference = torch.randn(k, generator=g, **torch64)
    return logits.requires_grad_(), reference, torch.randn(k, generator=g, **torch64)


def by_hand(logits, reference):
    """The definition, as the book writes it."""
    p, q = logits.softmax(-1), reference.softmax(-1)
    return (p * (p / q).log()).sum(-1)


def gradient(value, logits):
    return torch.autograd.grad(value, logits)[0]


# --- the objective ------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.05, 0.3, 1.0, 20.0])
def test_objective_is_beta_log_z_minus_beta_kl_to_the_optimum(beta):
    logits, reference, reward = make()
    p = logits.softmax(-1)
    left = (p * reward).sum() - beta * by_hand(logits, reference)
    weights = reference.softmax(-1) * (reward / beta).exp()
    star, log_z = P.optimum(reference, reward, beta)
    assert (star.exp() - weights / weights.sum()).abs().max() < 1e-14
    right = beta * weights.sum().log() - beta * by_hand(logits, star)
    assert abs(left - right) < 1e-10
    assert abs(P.objective(logits, reference, reward, beta) - left) < 1e-10
    assert abs(P.objective(star, reference, reward, beta) - beta * log_z) < 1e-10


@pytest.mark.parametrize("beta", [0.05, 0.5, 3.0])
def test_forward_optimum_satisfies_its_own_conditions_and_is_another_law(beta):
    _, reference, reward = make()
    logits = P.forward_optimum(reference, reward, beta).requires_grad_()
    assert abs(logits.exp().sum() - 1) < 1e-12
    value = (logits.softmax(-1) * reward).sum() - beta * by_hand(reference, logits)
    assert gradient(value, logits).abs().max() < 1e-10
    assert (logits.exp() - P.optimum(reference, reward, beta)[0].exp()).abs().max() > 1e-3


@pytest.mark.parametrize("estimator", ["exact", "k2"])
def test_trained_tabular_policy_reaches_the_optimum(estimator):
    _, reference, reward = make()
    beta = 0.3 if estimator == "exact" else 1.0
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], lr=1.0, max_iter=200, tolerance_grad=1e-14,
                                  tolerance_change=0.0, line_search_fn="strong_wolfe")  # fmt: skip
    if estimator == "k2":  # expected steps of the loss that a sample would give
        optimizer = torch.optim.SGD([logits], lr=2.0)

    def loss():
        optimizer.zero_grad()
        p, log_p = logits.softmax(-1), logits.log_softmax(-1)
        if estimator == "exact":
            value = -P.objective(logits, reference, reward, beta)
        else:
            k2 = P.penalty(log_p, reference.log_softmax(-1), use="loss")
            value = -(p * reward).sum() + beta * (p.detach() * k2).sum()
        value.backward()
        return value

    for _ in range(5 if estimator == "exact" else 5000):
        optimizer.step(loss)
    star, _ = P.optimum(reference, reward, beta)
    assert (logits.softmax(-1) - star.exp()).abs().max() < 1e-6


# --- the table of values and gradients ----------------------------------------------------------


def expected(logits, reference, use, estimator, **options):
    """E over all answers of the penalty's value and of the gradient that it would give."""
    p, log_p, log_q = logits.softmax(-1), logits.log_softmax(-1), reference.log_softmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", P.PenaltyWarning)
        terms = P.penalty(log_p, log_q, use=use, estimator=estimator, **options)
    value = (p.detach() * terms).sum()
    if use == "loss":
        return value.detach(), gradient(value, logits)
    return value, gradient((p.detach() * terms * log_p).sum(), logits)


def kl_gradients(logits, reference):
    """Of KL(pi || pi_0) and of KL(pi_0 || pi), through the definition."""
    return (gradient(by_hand(logits, reference), logits),
            gradient(by_hand(reference, logits), logits))  # fmt: skip


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_values(spread):
    logits, reference, _ = make(spread=spread)
    kl = by_hand(logits, reference)
    for estimator in ("k1", "k3"):
        assert abs(expected(logits, reference, "reward", estimator)[0] - kl) < 1e-10
    delta = logits.log_softmax(-1) - reference.log_softmax(-1)
    k2 = (logits.softmax(-1) * delta**2 / 2).sum()
    assert abs(expected(logits, reference, "reward", "k2")[0] - k2) < 1e-10
    assert abs(k2 - kl) > 1e-4


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_gradients_that_are_right_and_what_the_wrong_ones_follow(spread):
    logits, reference, _ = make(spread=spread)
    reverse, forward = kl_gradients(logits, reference)
    follows = {
        ("loss", "k1"): torch.zeros(6, **torch64),
        ("loss", "k2"): reverse,
        ("loss", "k3"): forward,
        ("reward", "k1"): reverse,
        ("reward", "k3"): reverse - forward,
    }
    for (use, estimator), wanted in follows.items():
        assert (expected(logits, reference, use, estimator)[1] - wanted).abs().max() < 1e-10
    for use, estimator in (("reward", "k2"), ("reward", "abs"), ("loss", "abs")):
        found = expected(logits, reference, use, estimator)[1]
        assert (found - reverse).norm() > 0.05 * reverse.norm()
    exact = P.penalty(logits, reference, use="loss", estimator="exact")
    assert abs(exact - by_hand(logits, reference)) < 1e-10
    assert (gradient(exact, logits) - reverse).abs().max() < 1e-10


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_differentiated_importance_ratio_has_the_right_gradient(estimator):
    logits, reference, _ = make()
    older = torch.randn(6, generator=torch.Generator().manual_seed(5), **torch64)
    terms = P.penalty(
        logits.log_softmax(-1), reference.log_softmax(-1), use="loss", estimator=estimator,
        log_behaviour=older.log_softmax(-1),
    )  # fmt: skip
    value = (older.softmax(-1) * terms).sum()
    assert abs(value - by_hand(logits, reference)) < 1e-10
    assert (gradient(value, logits) - kl_gradients(logits, reference)[0]).abs().max() < 1e-10


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_forward_direction_on_the_references_answers(estimator):
    logits, reference, _ = make()
    terms = P.penalty(logits.log_softmax(-1), reference.log_softmax(-1), use="loss",
                      estimator=estimator, direction="forward")  # fmt: skip
    value = (reference.softmax(-1) * terms).sum()
    assert abs(value - by_hand(reference, logits)) < 1e-10
    assert (gradient(value, logits) - kl_gradients(logits, reference)[1]).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("use", "estimator", "message"),
    [
        ("loss", "k1", "follows zero"),
        ("loss", "k3", r"gradient of KL\(pi_0 \|\| pi\)"),
        ("loss", "abs", "no KL's gradient"),
        ("reward", "k2", "no KL's gradient"),
        ("reward", "k3", "vanishes near the reference"),
        ("reward", "abs", "no KL's gradient"),
        ("reward", "exact", "zero for one decision"),
    ],
)
def test_wrong_gradients_warn_with_what_they_follow(use, estimator, message):
    log_policy, log_reference = (logits.log_softmax(-1) for logits in make()[:2])
    with pytest.warns(P.PenaltyWarning, match=message):
        P.penalty(log_policy, log_reference, use=use, estimator=estimator)


def test_right_ones_are_silent_and_the_default():
    logits, reference, _ = make()
    a, b = logits.log_softmax(-1), reference.log_softmax(-1)
    assert torch.equal(P.penalty(a, b, use="reward"), (a - b).detach())
    assert not P.penalty(a, b, use="reward").requires_grad
    assert torch.equal(P.penalty(a, b, use="loss"), (a - b) ** 2 / 2)
    P.penalty(a, b, use="loss", estimator="exact")


# --- sequences: three tokens out of three, every prefix its own distribution --------------------


def sequences():
    g = torch.Generator().manual_seed(3)
    levels = [torch.randn(3**t, 3, generator=g, **torch64).requires_grad_() for t in range(3)]
    others = [torch.randn(3**t, 3, generator=g, **torch64) for t in range(3)]
    y = torch.cartesian_prod(*[torch.arange(3)] * 3)
    prefix = torch.stack([torch.zeros(27, dtype=torch.long), y[:, 0], 3 * y[:, 0] + y[:, 1]], -1)

    def log_prob(tables):
        return torch.stack(
            [tables[t].log_softmax(-1)[prefix[:, t], y[:, t]] for t in range(3)], -1
        )

    kl = torch.stack(
        [P.exact_kl(levels[t], others[t])[prefix[:, t]] for t in range(3)], -1
    )  # at the states that each sequence visits
    return levels, log_prob(levels), log_prob(others), kl


def grads(value, levels):
    parts = torch.autograd.grad(value, levels, retain_graph=True)
    return torch.cat([part.reshape(-1) for part in parts])


def test_whole_gradient_of_a_sequences_kl():
    levels, log_p, log_q, kl = sequences()
    weight = log_p.sum(-1).exp()
    true = (weight * (log_p - log_q).sum(-1)).sum()
    wanted, w = grads(true, levels), weight.detach()
    surrogate = P.sequence_kl(kl, log_p)
    assert abs((w * surrogate).sum() - true) < 1e-12
    assert (grads((w * surrogate).sum(), levels) - wanted).abs().max() < 1e-12
    k2 = P.penalty(log_p, log_q, use="loss", per="sequence")
    assert (grads((w * k2).sum(), levels) - wanted).abs().max() < 1e-12
    k1 = P.penalty(log_p, log_q, use="reward", per="sequence")
    assert (grads((w * k1 * log_p.sum(-1)).sum(), levels) - wanted).abs().max() < 1e-12
    # token by token in the loss: the same for k2 and exact, and not the whole gradient
    by_token = grads((w * P.penalty(log_p, log_q, use="loss").sum(-1)).sum(), levels)
    assert (by_token - grads((w * kl.sum(-1)).sum(), levels)).abs().max() < 1e-12
    assert (by_token - wanted).norm() > 0.1 * wanted.norm()


def test_masked_tokens_may_hold_anything():
    log_p = torch.tensor([[-1.0, math.nan], [-2.0, -math.inf]], requires_grad=True)
    log_q = torch.tensor([[-1.5, 3.0], [-1.0, -math.inf]])
    mask = torch.tensor([[True, False], [True, False]])
    for per in ("token", "sequence"):
        value = P.penalty(log_p, log_q, use="loss", mask=mask, per=per)
        (slope,) = torch.autograd.grad(value.sum(), log_p)
        assert value.isfinite().all()
        assert slope[:, 0].tolist() == [0.5, -1.0]
        assert slope[:, 1].tolist() == [0.0, 0.0]


# --- intervals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.2, 4.0])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_intervals_cover(spread, estimator):
    """95 % intervals over 2,000 repetitions; k2's cover E[k2], which is the KL only nearby."""
    logits, reference, _ = make(seed=1)
    with torch.no_grad():
        logits = reference + spread * (logits - reference) / 2
        log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
        truth = by_hand(logits, reference)
        if estimator == "k2":
            truth = (log_p.exp() * (log_p - log_q) ** 2 / 2).sum()
        g = torch.Generator().manual_seed(7)
        y = torch.multinomial(log_p.exp(), 2000 * 1000, replacement=True, generator=g)
        y, hits = y.view(2000, 1000), 0
        for row in y:
            found = P.sampled_kl(log_p[row], log_q[row], estimator)
            hits += bool((found.value - truth).abs() <= 1.959964 * found.standard_error)
    print(spread, estimator, f"KL {float(truth):.4f}", hits / 2000)
    assert 0.93 <= hits / 2000 <= 0.97


# --- gate, whitening, penalised reward ----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gate_at_the_threshold(dtype):
    safety = torch.tensor([0.1499, 0.15, 0.1501], dtype=dtype)
    helpfulness = torch.full((3,), 0.7, dtype=dtype)
    plain = P.gate(safety, helpfulness, torch.tensor(False))
    assert torch.equal(plain, torch.stack([safety[0], helpfulness[1], helpfulness[2]]))
    assert torch.equal(P.gate(safety, helpfulness, torch.tensor(True)), safety)


def test_whiten():
    reward = P.logit(torch.rand(500, generator=torch.Generator().manual_seed(0), **torch64))
    white = P.whiten(reward)
    assert abs(white.mean()) < 1e-14
    assert abs(white.square().mean() - 1) < 1e-13
    assert abs(P.whiten(reward, correction=1).var() - 1) < 1e-13
    for constant in (0.1, 1e8 + 0.3, 1 / 3):
        assert torch.equal(P.whiten(torch.full((7,), constant)), torch.zeros(7))
    assert torch.equal(P.whiten(torch.tensor([3.0])), torch.zeros(1))
    halves = P.moments(reward[:123]).merge(P.moments(reward[123:]))
    assert (P.whiten(reward, halves) - white).abs().max() < 1e-12
    frozen = P.moments(reward[:100])
    assert torch.equal(P.whiten(reward, frozen)[200:], P.whiten(reward[200:], frozen))
    with pytest.raises(ValueError, match="constant reward"):
        P.whiten(reward, P.moments(torch.ones(3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rewards_of_zero_and_one_stay_finite(dtype):
    score = P.logit(torch.tensor([0.0, 0.5, 1.0], dtype=dtype))
    assert score.isfinite().all()
    assert score[0] == -score[2]
    assert score[1] == 0
    assert P.whiten(score).isfinite().all()
    assert abs(P.logit(torch.tensor([0.0]), clamp=0.01) - math.log(0.01 / 0.99)) < 1e-6


def test_whitening_comes_before_the_penalty():
    safety, helpfulness = torch.rand(2, 50, generator=torch.Generator().manual_seed(1), **torch64)
    kl = torch.linspace(0, 5, 50, **torch64)
    reward = P.llama2_reward(safety, helpfulness, torch.tensor(False))
    penalised = P.penalised_reward(reward, kl, P.LLAMA2_BETA["7B"])
    assert abs(penalised.mean() + 0.01 * kl.mean()) < 1e-14
    assert dict(P.LLAMA2_BETA) == {"7B": 0.01, "13B": 0.01, "34B": 0.005, "70B": 0.005}


def test_reward_per_token_is_paid_at_the_last_token():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    kl = torch.tensor([[1.0, 2.0, math.nan], [1.0, 1.0, 1.0]])
    tokens = P.penalised_reward(torch.tensor([5.0, 7.0]), kl, 0.5, mask=mask)
    assert tokens.tolist() == [[-0.5, 4.0, 0.0], [-0.5, -0.5, 6.5]]


# --- controllers --------------------------------------------------------------------------------


def test_adaptive_controller_follows_the_formula_and_never_goes_negative():
    controller = P.AdaptiveBeta(0.2, target=6.0, horizon=1000)
    beta = 0.2
    for kl in (6.0, 6.3, 12.0, -3.0, 5.9):
        beta *= 1 + min(max(kl / 6 - 1, -0.2), 0.2) * 100 / 1000
        assert controller.step(kl, 100) == pytest.approx(beta, rel=1e-14)
    with pytest.warns(UserWarning, match="raise the horizon above 2000"):
        assert controller.step(0.0, 10_000) == 0.0
    assert P.AdaptiveBeta(0.0, target=1.0, horizon=10).step(5.0, 1) == 0.0
    assert P.FixedBeta(0.3).update(torch.ones(2, 3)) == 0.3


def test_granularity():
    kl = torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert P.aggregate(kl, "sequence sum", mask) == 7.5
    assert P.aggregate(kl, "token mean", mask) == 3.0


# --- exact KL over a vocabulary -----------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-4, 0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    ("dtype", "value_off", "slope_off"),
    [(torch.float64, 1e-11, 1e-11), (torch.float32, 1e-5, 1e-5), (torch.bfloat16, 1e-5, 8e-3)],
)
def test_exact_kl_and_gradients_against_float64(scale, dtype, value_off, slope_off):
    g = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(2, 3, 50_000, generator=g, **torch64)
    y = (x + scale * torch.randn(x.shape, generator=g, **torch64) + 2).to(dtype)
    x = x.to(dtype).requires_grad_()
    y.requires_grad_()
    wide = [z.detach().double().requires_grad_() for z in (x, y)]
    weight = torch.rand(2, 3, generator=g, **torch64)
    log_p, log_q = (z.log_softmax(-1) for z in wide)
    d = log_p - log_q
    value = (log_q.exp() * (torch.expm1(d) * (d - 1) + d)).sum(-1)  # all terms positive
    (value * weight).sum().backward()
    ours = P.exact_kl(x, y)
    (ours * weight).sum().backward()
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    floor = 1e-16 if dtype == torch.float64 else 0.0
    assert ((ours - value).abs() <= value_off * value + floor).all()
    for narrow, w in zip((x, y), wide, strict=True):
        off = (narrow.grad - w.grad).abs().amax(-1) / w.grad.abs().amax(-1)
        # the reference's slope is measured from a rounded mean of the differences, here -2
        assert off.max() < (slope_off if narrow is x else slope_off + 16 * 2**-24 / scale)


def in_extended_precision(p, q):
    """KL of logits as they are given, and its gradients, in terms of one sign."""
    log_p, log_q = (x.detach().double().numpy().astype(np.longdouble) for x in (p, q))
    log_p, log_q = (x - x.max(-1, keepdims=True) for x in (log_p, log_q))
    log_p, log_q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (log_p, log_q))
    mass, other, d = np.exp(log_p), np.exp(log_q), log_p - log_q
    kl = (mass * d - mass + other).sum(-1)
    found = kl, mass * (d - kl[..., None]), other - mass
    return [torch.as_tensor(x.astype(float)) for x in found]


@pytest.mark.parametrize("offsets", [(0, 0), (1000, 0), (0, -1000), (1000, 1000), (1000, -500)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_exact_kl_is_that_of_the_given_logits(dtype, offsets):
    """Near the reference, in half precision, and whatever constants the logits carry."""
    g = torch.Generator().manual_seed(0)
    for scale in (1e-4, 1e-2, 0.05, 0.3, 2.0):
        p = 0.5 * torch.randn(8, 2000, generator=g, **torch64)
        q = (p + scale * torch.randn(8, 2000, generator=g, **torch64) + offsets[1]).to(dtype)
        p = (p + offsets[0]).to(dtype)
        value, by_p, by_q = in_extended_precision(p, q)
        leaves = p.requires_grad_(), q.requires_grad_()
        ours = P.exact_kl(*leaves)
        plain = torch.func.vmap(P.exact_kl)(p.detach(), q.detach())
        off = 1e-10 if dtype is torch.float64 else 1e-5
        for found in (ours, plain):
            assert ((found - value).abs() <= off * value).all(), (scale, found, value)
        off, tiny = max(off, 4 * torch.finfo(dtype).eps), torch.finfo(dtype).tiny
        for slope, right in zip(
            torch.autograd.grad(ours.sum(), leaves), (by_p, by_q), strict=True
        ):
            largest = right.abs().amax(-1, keepdim=True)
            assert ((slope - right).abs() <= off * largest + tiny).all(), (scale, slope, right)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (0, 3, 4)])
def test_exact_kl_of_no_tokens(shape):
    policy = torch.zeros(shape, dtype=torch.bfloat16, requires_grad=True)
    for mask in (None, torch.ones(shape[:-1], dtype=torch.bool)):
        value = P.exact_kl(policy, torch.zeros(shape), mask=mask)
        assert value.shape == shape[:-1]
        assert value.dtype == torch.float32
        assert gradient(value.sum(), policy).shape == shape


def test_exact_kl_masks_tokens_without_mass_strides_second_derivatives_and_vmap():
    logits, reference, _ = make()
    blocked = torch.tensor([0.0, -math.inf, 0.0, 0.0, -math.inf, 0.0], **torch64)
    value = P.exact_kl(logits + blocked, reference)
    kept = [0, 2, 3, 5]
    p, log_q = logits[kept].softmax(-1), reference.log_softmax(-1)[kept]
    assert abs(value - (p * (p.log() - log_q)).sum()) < 1e-12
    assert gradient(value, logits).isfinite().all()
    leaves = (logits, reference.clone().requires_grad_())
    # a second backward pass takes plain operations, in other roundings
    assert torch.autograd.gradcheck(P.exact_kl, leaves, nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(lambda a: P.exact_kl(a, reference), (logits,))
    batch = torch.randn(4, 5, 6, **torch64)
    whole = P.exact_kl(batch, reference)
    assert (torch.func.vmap(lambda a: P.exact_kl(a, reference))(batch) - whole).abs().max() < 1e-12
    assert torch.equal(P.exact_kl(batch[:, :-1], reference), whole[:, :-1])
    dirty = batch.clone()
    dirty[0, 0] = math.nan
    dirty.requires_grad_()
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[0, 0] = False
    masked = P.exact_kl(dirty, reference, mask=mask)
    assert masked[0, 0] == 0
    slope = gradient(masked.sum(), dirty)
    assert slope.isfinite().all()
    assert (slope[0, 0] == 0).all()


def test_a_second_backward_pass_gives_the_same_gradient():
    logits, reference, _ = make()
    value = P.exact_kl(logits, reference)
    once = torch.autograd.grad(value, logits, retain_graph=True)[0].clone()
    assert (torch.autograd.grad(value, logits)[0] - once).abs().max() < 1e-14


# --- bad input ----------------------------------------------------------------------------------

HALF = torch.tensor([0.5, 0.5])
LOG = HALF.log()
NONE = torch.tensor([0.0, -math.inf])
BAD = {
    "reward above 1": (lambda: P.logit(torch.tensor([0.5, 1.5])), "position 1 is 1.5"),
    "reward nan": (lambda: P.logit(torch.tensor([math.nan])), "position 0 is nan"),
    "safety": (lambda: P.gate(-HALF, HALF, HALF > 0), "the safety reward at position 0 is -0.5"),
    "flag": (lambda: P.gate(HALF, HALF, HALF), "is_safety must be boolean"),
    "threshold": (lambda: P.gate(HALF, HALF, HALF > 0, 1.5), "threshold must be a probability"),
    "clamp": (lambda: P.logit(HALF, 0.7), "clamp must be"),
    "whiten inf": (lambda: P.whiten(torch.tensor([math.inf])), "only finite rewards"),
    "mask": (lambda: P.penalty(LOG, LOG, use="loss", mask=HALF > 1), "hides everything"),
    "mask exact": (lambda: P.exact_kl(LOG, LOG, mask=torch.tensor(False)), "hides everything"),
    "mask dtype": (lambda: P.penalty(LOG, LOG, use="loss", mask=HALF), "must be boolean"),
    "no vocabulary": (lambda: P.exact_kl(torch.zeros(2, 0), torch.zeros(2, 0)),
                      r"need a last dimension, the vocabulary: shape \(2, 0\)"),
    "vocabulary": (lambda: P.exact_kl(LOG, torch.zeros(3)), "2 tokens against 3"),
    "shapes": (lambda: P.penalty(LOG, torch.zeros(3), use="loss"), "do not broadcast"),
    "infinite": (lambda: P.exact_kl(LOG.expand(3, 2), torch.stack([LOG, NONE, LOG])),
                 r"at position 1 is infinite: the policy gives token 1 probability 0.5"),
    "infinite sample": (lambda: P.penalty(LOG, NONE, use="reward"), "the token at position 1"),
    "never sampled": (lambda: P.penalty(NONE, LOG, use="reward"), "said to have sampled it"),
    "nan logits": (lambda: P.exact_kl(LOG * math.nan, LOG), "logits are no distribution's"),
    "beta": (lambda: P.penalised_reward(HALF, HALF, -0.1), "at least 0, got -0.1"),
    "beta fixed": (lambda: P.FixedBeta(-1.0), "at least 0"),
    "beta nan": (lambda: P.objective(LOG, LOG, HALF, math.nan), "at least 0"),
    "beta 0": (lambda: P.optimum(LOG, HALF, 0.0), "beta is 0"),
    "horizon": (lambda: P.AdaptiveBeta(0.1, 1.0, 0), "horizon must be positive"),
    "target": (lambda: P.AdaptiveBeta(0.1, -1.0, 10), "target must be positive"),
    "granularity": (lambda: P.AdaptiveBeta(0.1, 1.0, 10, granularity="x"), "must be one of"),
    "kl": (lambda: P.AdaptiveBeta(0.1, 1.0, 10).step(math.nan, 1), "cannot act"),
    "use": (lambda: P.penalty(LOG, LOG, use="x"), "use must be one of 'reward', 'loss'"),
    "forward": (lambda: P.penalty(LOG, LOG, use="reward", direction="forward", estimator="k1"),
                "earn no reward"),
    "answers": (lambda: P.sampled_kl(LOG[:1], LOG[:1]), "at least two answers"),
    "no reward for it": (lambda: P.optimum(LOG, torch.zeros(3), 1.0), "do not broadcast"),
    "token of nothing": (lambda: P.penalised_reward(HALF, torch.zeros(2, 2), 1.0,
                         mask=torch.tensor([[True, True], [False, False]])),
                         "sequence at position 1"),
    "carries a gradient": (lambda: P.penalised_reward(HALF, LOG.clone().requires_grad_(), 1.0),
                           "no gradient"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_clear_error(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("nothing_warned")
def test_logits_in_the_place_of_log_probabilities_are_told():
    logits = torch.tensor([2.0, -1.0])
    with pytest.warns(UserWarning, match="a log probability is 2, .* log_softmax first"):
        P.penalty(logits, logits - 1.0, use="reward")
    P.penalty(logits, logits - 1.0, use="reward")  # once
    rounded = torch.zeros(2, dtype=torch.bfloat16) + 0.01  # of log_softmax in half precision
    P.penalty(rounded, rounded, use="reward")
    P.penalty(torch.zeros(0), torch.zeros(0), use="reward")
