"""The example of a KL-penalised policy: its enumeration, its pictures, its options."""

import sys
import types

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyro_kl
from examples import kl_penalised_policy as example
from models.policy import CategoricalPolicy, NormalPolicy, exact_loss, kl_elbo


def test_every_sentence_is_enumerated_once_and_found_again():
    prompt, words = example.sentences()
    assert len(words) == 4 * 3**8
    assert len(torch.unique(torch.cat([prompt[:, None], words], 1), dim=0)) == len(words)
    assert torch.equal(example.rows_of(words, prompt), torch.arange(len(words)))
    torch.manual_seed(0)
    model = example.Language()
    with torch.no_grad():
        each = example.log_prob_of_all(model)
        word_by_word = example.log_prob(model, prompt, words).sum(-1)
    torch.testing.assert_close(each, word_by_word, rtol=0, atol=1e-5)
    assert (each.double().exp().view(4, -1).sum(-1) - 1).abs().max() < 1e-5


def test_smoke(tmp_path, capsys):
    assert example.main(["--smoke", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "26,244 sentences, all enumerated" in text
    assert max(map(len, text.splitlines())) <= 80
    for picture in example.PICTURES:
        assert (tmp_path / picture).stat().st_size > 20_000
    rows = [line.split() for line in text.splitlines() if line.startswith("  ") and "." in line]
    table = [[float(x) for x in row] for row in rows if len(row) == 5]
    assert len(table) == 4
    assert all(row[3] <= row[4] + 1e-3 for row in table)  # J is at most beta log Z


def test_output_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert example.main(["--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_model_without_transformers_or_without_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert example.main(["--model", str(tmp_path)]) == 2
    assert "pyro-kl[llm]" in capsys.readouterr().err
    stub = types.ModuleType("transformers")
    stub.AutoModelForCausalLM = object
    monkeypatch.setitem(sys.modules, "transformers", stub)
    assert example.main(["--model", str(tmp_path / "none")]) == 2
    assert "nothing is downloaded" in capsys.readouterr().err


def test_model_of_ones_own(tmp_path, capsys, monkeypatch):
    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(50, 50)
            self.config = types.SimpleNamespace(bos_token_id=1)

        @classmethod
        def from_pretrained(cls, path, local_files_only):
            assert local_files_only
            return cls()

        def forward(self, tokens):
            return types.SimpleNamespace(logits=self.table(tokens))

    stub = types.ModuleType("transformers")
    stub.AutoModelForCausalLM = Tiny
    monkeypatch.setitem(sys.modules, "transformers", stub)
    assert example.main(["--model", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    exact = float(text.split("tokens: ")[1].split()[0])
    k3 = text.split("k3: ")[1].split()
    assert float(k3[0]) == pytest.approx(exact, abs=5 * float(k3[2]))


# --- the policy in Pyro: its ELBO is J / beta, and inference reaches pi* ------------------------


def categorical(beta=0.5):
    g = torch.Generator().manual_seed(0)
    reference, reward = torch.randn(2, 3, 5, generator=g, dtype=torch.float64)
    return CategoricalPolicy(reference, reward, beta)


def normal(beta=0.5):
    loc = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return NormalPolicy(loc, torch.tensor([1.0, 0.5], dtype=torch.float64), loc + 1.5, 2.0, beta)


def test_the_enumerated_elbo_is_j_over_beta_and_trains_to_the_optimum():
    policy = categorical()
    with torch.no_grad():
        policy.logits += torch.randn_like(policy.logits)
    loss = exact_loss(policy)
    assert abs(policy.beta * loss + policy.objective().sum()) < 1e-10
    optimizer = torch.optim.LBFGS(policy.parameters(), max_iter=500, tolerance_grad=1e-14,
                                  tolerance_change=0.0, line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = exact_loss(policy)
        loss.backward()
        return loss

    optimizer.step(closure)
    star, log_z = policy.optimum()
    assert (policy.logits.softmax(-1) - star.exp()).abs().max() < 1e-6
    assert abs(closure() + log_z.sum()) < 1e-10


def test_at_the_optimum_every_sample_says_log_z():
    policy = categorical()
    star, log_z = policy.optimum()
    with torch.no_grad():
        policy.logits.copy_(star)
    for _ in range(3):
        loss = Trace_ELBO(max_plate_nesting=1).loss(policy.model, policy.guide)
        assert loss == pytest.approx(-float(log_z.sum()), abs=1e-10)


@pytest.mark.parametrize("make", [categorical, normal])
def test_the_exact_kl_elbo_averages_to_j_over_beta(make):
    if make is categorical and not hasattr(pyro_kl, "TraceKL_ELBO"):
        pytest.skip("Pyro's own mean-field ELBO takes no discrete guide")
    policy = make()
    pyro.set_rng_seed(0)
    elbo = kl_elbo()
    guide = policy.guide
    with torch.no_grad():
        losses = torch.tensor([elbo.loss(policy.model, guide) for _ in range(2000)])
    error = losses.std() / len(losses) ** 0.5
    assert abs(losses.mean() + policy.objective().sum().item() / policy.beta) < 4 * error


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_j_of_a_normal_policy_by_its_integral(beta):
    policy = normal(beta)
    with torch.no_grad():
        policy.loc += 0.3
        policy.log_scale -= 0.2
        pi, (star, log_z) = policy.policy(), policy.optimum()
        eps = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
        weight = (-0.5 * eps**2).exp() * (eps[1] - eps[0]) / (2 * torch.pi) ** 0.5
        a = pi.mean + pi.stddev * eps[:, None]
        reference = pyro.distributions.Normal(policy.reference_loc, policy.reference_scale)
        ratio = pi.log_prob(a) - reference.log_prob(a)
        j = (weight[:, None] * (policy.reward(a) - beta * ratio)).sum(0)
        gap = (weight[:, None] * (pi.log_prob(a) - star.log_prob(a))).sum(0)
        assert (policy.objective() - j).abs().max() < 1e-10
        assert (j - beta * (log_z - gap)).abs().max() < 1e-10


def test_a_normal_policy_trained_in_pyro_reaches_the_optimum():
    policy = normal()
    pyro.set_rng_seed(0)
    elbo = kl_elbo()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.1 ** (2 / 800))
    for _ in range(800):
        optimizer.zero_grad()
        elbo.differentiable_loss(policy.model, policy.guide).backward()
        optimizer.step()
        schedule.step()
    star, _ = policy.optimum()
    with torch.no_grad():
        assert torch.distributions.kl_divergence(policy.policy(), star).max() < 5e-3  # it was 1.1


def test_bad_input():
    zeros = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="beta must be positive"):
        CategoricalPolicy(zeros, zeros, 0.0)
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(3,\)"):
        CategoricalPolicy(zeros, zeros[0:1].T[:, 0], 1.0)


@pytest.mark.skipif(not hasattr(pyro_kl, "TraceKL_ELBO"), reason="the ELBO is not there yet")
def test_the_report_names_the_kl_of_the_policy():
    policy = normal()
    elbo = kl_elbo()
    elbo.loss(policy.model, policy.guide)
    assert "action" in str(elbo.report)
