"""Divergences next to the KL at six pairs, against 34 digits; lines that overflow."""

from __future__ import annotations

import pytest
from pyro.distributions import Logistic
from torch.distributions import (
    Beta,
    Exponential,
    Gamma,
    GeneralizedPareto,
    Gumbel,
    HalfNormal,
    Kumaraswamy,
    Laplace,
    Normal,
    Pareto,
    Weibull,
)

import pyro_kl

from .making import number

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")


def of(cls):
    return lambda **parameters: lambda: cls(**{k: number(x) for k, x in parameters.items()})


# Integrals at 34 digits (mpmath's tanh-sinh rule on some twenty pieces) of the densities as the
# books write them.


REFERENCES = [
    (
        of(Normal)(loc=0.3, scale=1.1),
        of(Laplace)(loc=-0.5, scale=2.0),
        {
            0.1: 0.13048507735928276107,
            0.5: 0.31674445797106747882,
            0.9: 0.405208307533782269,
            0.999999: 0.42208081487554195802,
            1.000001: 0.42208113797779055203,
            2.0: 0.53954017304783439309,
            5.0: 0.69338265264607535498,
        },
        0.12225459909663748394,
    ),
    (
        of(Normal)(loc=0.3, scale=1.1),
        of(Normal)(loc=-0.5, scale=2.0),
        {
            0.1: 0.070333707924701165986,
            0.5: 0.23039566033050340205,
            0.9: 0.3137259907558049563,
            0.999999: 0.32908685492898445075,
            1.000001: 0.32908714658210944303,
            2.0: 0.4275149697349761259,
            5.0: 0.53683214546645383493,
        },
        0.095683679600793625688,
    ),
    (
        of(Gumbel)(loc=0.5, scale=1.0),
        of(Logistic)(loc=0.0, scale=1.5),
        {
            0.1: 0.2511233285855113265,
            0.5: 0.4042369083420211531,
            0.9: 0.46735542643892555655,
            0.999999: 0.4790642240004683853,
            1.000001: 0.47906444724512381588,
            2.0: 0.55763857231254959871,
            5.0: 0.65505332877003256711,
        },
        0.14398908668957913884,
    ),
    (
        of(Gamma)(concentration=2.0, rate=3.0),
        of(Weibull)(scale=1.5, concentration=0.75),
        {
            0.1: 0.13826464922433547146,
            0.5: 0.35322381310218419053,
            0.9: 0.44788850162062435029,
            0.999999: 0.4647838893564045389,
            1.000001: 0.46478420888680275526,
            2.0: 0.57050173826186318306,
            5.0: 0.68458148606764956875,
        },
        0.13565002963112827694,
    ),
    (
        of(HalfNormal)(scale=1.0),
        of(Exponential)(rate=0.5),
        {
            0.1: 0.13656474722928058563,
            0.5: 0.29603825414251140369,
            0.9: 0.35608121588317457292,
            0.999999: 0.36629801236520435497,
            1.000001: 0.36629820426798085659,
            2.0: 0.42726818151662965359,
            5.0: 0.48815334158535622797,
        },
        0.11187960050964090701,
    ),
    (
        of(Beta)(concentration1=2.0, concentration0=3.0),
        of(Kumaraswamy)(concentration1=1.5, concentration0=2.0),
        {
            0.1: 0.006619092935748526863,
            0.5: 0.029179158951433975166,
            0.9: 0.047073152318623887076,
            0.999999: 0.050996046139784550663,
            1.000001: 0.050996122691696237413,
            2.0: 0.081925686953604183106,
            5.0: 0.13102183583889679034,
        },
        0.014106213721567056379,
    ),
]


@pytest.mark.parametrize(("p", "q", "values", "js"), REFERENCES)
def test_references(p, q, values, js):
    p, q = p(), q()
    for alpha, value in values.items():
        found = pyro_kl.renyi(p, q, alpha)
        assert float(found) == pytest.approx(value, rel=1e-13)
        if found.error is not None:
            assert found.method == "quadrature"
            assert found.error < 1e-9 * value
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(js, rel=1e-13)
    assert float(pyro_kl.jensen_shannon(q, p)) == pytest.approx(js, rel=1e-13)


def test_lines_that_overflow():
    """Far out on the line of a Pareto, x overflows before its density is nothing."""
    p = GeneralizedPareto(number(1.0), number(2.0), number(0.0))
    found = pyro_kl.renyi(p, Pareto(number(4.0), number(6.0)), 0.9)
    assert float(found) == pytest.approx(13.87898486082532, rel=1e-12)
    # on the line of q, p's mass next to 0 is further out than floats go: the error says so
    p, q = Gamma(number(0.3), number(5.0)), Kumaraswamy(number(12.0), number(5.0))
    found = pyro_kl.renyi(p, q, 1 - 1e-6)
    assert abs(float(found) - 706.379328097893) < float(found.error) * 1.01
    far = pyro_kl.renyi(HalfNormal(number(15.0)), Exponential(number(8.0)), 5.0)
    assert float(far) == pytest.approx(5754.958823960658, rel=1e-12)
