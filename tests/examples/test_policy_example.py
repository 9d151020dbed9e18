"""The example of a KL-penalised policy: its enumeration, its pictures, its options."""

import sys
import types

import pytest
import torch

from examples import kl_penalised_policy as example


def test_every_sentence_is_enumerated_once_and_found_again():
    prompt, words = example.sentences()
    assert len(words) == 4 * 3**8
    assert len(torch.unique(torch.cat([prompt[:, None], words], 1), dim=0)) == len(words)
    assert torch.equal(example.rows_of(words, prompt), torch.arange(len(words)))
    torch.manual_seed(0)
    model = example.Language()
    with torch.no_grad():
        total = example.log_prob(model, prompt, words).sum(-1).double().exp().view(4, -1).sum(-1)
    assert (total - 1).abs().max() < 1e-5


def test_smoke(tmp_path, capsys):
    assert example.main(["--smoke", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "26,244 sentences, all enumerated" in text
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
