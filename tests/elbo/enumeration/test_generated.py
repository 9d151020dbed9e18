"""Generated models and guides: `TraceEnumKL_ELBO` against `TraceEnum_ELBO`, loss and gradient."""

import functools
import warnings

import pyro
import pytest

from pyro_kl import TraceEnumKL_ELBO

from ...conformance.enumerated.judge import generated, run

#: What one generates: each template some times, with every place of the discrete sites.
SEEDS = range(60)
#: Few of them: a mixture, an HMM, nested plates, chains, topics, an autoguide, gaps.
FEW = (5, 7, 8, 10, 13, 20, 22)
#: Whose draws of discrete sites, or of Normals without a derivative, have score functions.
SCORED = [n for n in SEEDS if "drawn" in generated(n).options.title.split()]
SCORED += [n for n in SEEDS if generated(n).options.family == "score"]


def few(seeds, count):
    """The seeds, of which `make test` takes those in `count`."""
    return [n if n in count else pytest.param(n, marks=pytest.mark.sweep) for n in seeds]


@pytest.mark.parametrize("seed", few((n for n in SEEDS if n not in SCORED), FEW))
def test_with_sampled_kls_the_two_are_equal_draw_by_draw(seed):
    sampled = functools.partial(TraceEnumKL_ELBO, mean_field="never")
    assert run(sampled, seed, draws=2).gap < 1e-12


@pytest.mark.parametrize("seed", few(SEEDS, (10, 11, 22)))
def test_with_exact_kls_the_two_agree_in_expectation(seed):
    verdict = run(TraceEnumKL_ELBO, seed, draws=1_000)
    assert verdict.worst < 4.2, verdict


@pytest.mark.parametrize(
    "seed", few((n for n in SEEDS if generated(n).options.nothing_drawn), (16, 17))
)
def test_the_two_are_equal_where_nothing_is_drawn(seed):
    assert run(TraceEnumKL_ELBO, seed, draws=2).gap < 1e-12


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("seed", few(SEEDS, (1, 7, 20)))
def test_the_report_adds_up_to_the_loss(seed):
    one = generated(seed)
    particles = dict(num_particles=3, vectorize_particles=one.options.particles == "vectorized")
    elbo = TraceEnumKL_ELBO(max_plate_nesting=one.nesting, **particles)
    with warnings.catch_warnings(), pyro.validation_enabled(False):
        warnings.simplefilter("ignore")
        loss = elbo.loss(one.model, one.guide, one.options.index(one.size, 0))
    report = elbo.report
    assert -report.elbo == pytest.approx(loss, rel=1e-10)
    rows = {row.site: row for row in report}
    likelihood = sum(row.nats for row in rows.values() if row.kind == "likelihood")
    kl = sum(row.nats for row in rows.values() if row.kind == "latent")
    assert kl - likelihood == pytest.approx(loss, rel=1e-10)
    assert all(row.nats > -1e-9 for row in rows.values() if "summed out" in row.method)


def test_every_kind_of_discrete_site_is_generated():
    titles = [f"{generated(seed).title} {generated(seed).options.title}" for seed in SEEDS]
    for word in (
        "model",
        "guide",
        "sequential",
        "drawn",
        "several",
        "one",
        "masked",
        "subsampled",
    ):
        assert sum(word in title.split() for title in titles) >= 4, word
    assert len({generated(seed).title for seed in SEEDS}) >= 12
