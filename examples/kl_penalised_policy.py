"""Fine-tune a small language model against two reward models, with everything enumerated.

A GRU over a vocabulary of 20 words writes sentences of 8. A grammar lets each word be followed
by 3 others, so that a prompt has 3^8 = 6,561 sentences out of 20^8 that could be: all of them are
enumerated, and the optimum pi* = pi_0 exp(R / beta) / Z is exact. Run
``python -m examples.kl_penalised_policy --help`` for the options.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_kl import policy as rlhf

WORDS, LENGTH, FOLLOWERS, PROMPTS = 20, 8, 3, 4
SAFETY_PROMPTS = (0, 1)
PICTURES = ("training.png", "frontier.png", "estimators.png")
BAD_INPUT = 2
#: The KL that the adaptive beta aims at, nats per sentence.
TARGET = 1.0
#: (use, estimator, per) of each way to penalise.
WAYS = (
    ("reward", "k1", "sequence"),
    ("loss", "k2", "sequence"),
    ("loss", "k1", "sequence"),
    ("loss", "k3", "sequence"),
    ("reward", "k3", "sequence"),
    ("loss", "exact", "token"),
)


class Language(torch.nn.Module):
    """A GRU that gives the next word's logits; -inf where the grammar forbids the word."""

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS + PROMPTS, 12)
        self.cell = torch.nn.GRUCell(12, hidden)
        self.out = torch.nn.Linear(hidden, WORDS)
        self.start = torch.nn.Parameter(torch.zeros(hidden))

    def step(self, last: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next word, shape ``(n, WORDS)``, and the new state."""
        state = self.cell(self.embed(last), state)
        # prompt i is what word i is to the grammar
        return self.out(state).masked_fill(~ALLOWED[last % WORDS], -torch.inf), state

    def logits(self, prompt: Tensor, words: Tensor) -> Tensor:
        """Logits at each position of given sentences, shape ``(n, LENGTH, WORDS)``."""
        state = self.start.expand(len(prompt), -1)
        last, found = prompt + WORDS, []
        for t in range(LENGTH):
            here, state = self.step(last, state)
            found.append(here)
            last = words[:, t]
        return torch.stack(found, 1)


def _grammar() -> Tensor:
    """Which word may follow which: three for each, from anywhere to anywhere."""
    word = torch.arange(WORDS)
    allowed = torch.zeros(WORDS, WORDS, dtype=torch.bool)
    for step in (1, 4, 11):
        allowed[word, (word * 3 + step) % WORDS] = True
    return allowed


ALLOWED = _grammar()


def sentences() -> tuple[Tensor, Tensor]:
    """Every prompt with each of its sentences: shapes ``(N,)`` and ``(N, LENGTH)``."""
    prompt, words = torch.arange(PROMPTS), torch.empty(PROMPTS, 0, dtype=torch.long)
    followers = ALLOWED.nonzero()[:, 1].view(WORDS, FOLLOWERS)
    for _ in range(LENGTH):
        last = words[:, -1] if words.shape[1] else prompt
        words = torch.cat(
            [words.repeat_interleave(FOLLOWERS, 0), followers[last].reshape(-1, 1)], 1
        )
        prompt = prompt.repeat_interleave(FOLLOWERS)
    return prompt, words


def reward_models(words: Tensor) -> tuple[Tensor, Tensor]:
    """Safety and helpfulness of whole sentences, in (0, 1): words count, and so do repetitions."""
    unsafe, helpful = (words % 5 == 3).sum(-1), (words % 4 == 1).sum(-1)
    repeated = (words[:, 1:] == words[:, :-1]).sum(-1) + (words[:, 2:] == words[:, :-2]).sum(-1)
    return (
        torch.sigmoid(2.5 - 1.2 * unsafe.double()),
        torch.sigmoid(-2.0 + 0.9 * helpful.double() + 0.4 * unsafe.double() - 0.8 * repeated),
    )


def log_prob(model: Language, prompt: Tensor, words: Tensor) -> Tensor:
    """Log pi of each word of given sentences, shape ``(n, LENGTH)``."""
    log_p = model.logits(prompt, words).log_softmax(-1)
    return log_p.gather(-1, words.unsqueeze(-1)).squeeze(-1)


def log_prob_of_all(model: Language) -> Tensor:
    """Log pi of every sentence, shape ``(N,)``, in the order of `sentences`.

    Sentences with the same beginning share its logits: a step of the GRU for each beginning, not
    for each word of each sentence.
    """
    followers = ALLOWED.nonzero()[:, 1].view(WORDS, FOLLOWERS)
    prompt = torch.arange(PROMPTS)
    state, last, total = model.start.expand(PROMPTS, -1), prompt + WORDS, torch.zeros(PROMPTS)
    for _ in range(LENGTH):
        logits, state = model.step(last, state)
        choice = followers[last % WORDS]
        log_p = logits.log_softmax(-1).gather(-1, choice)
        total = (total.unsqueeze(-1) + log_p).reshape(-1)
        last, state = choice.reshape(-1), state.repeat_interleave(FOLLOWERS, 0)
    return total


@dataclass(frozen=True)
class Task:
    """The reference, every sentence, and their whitened rewards (statistics frozen under pi_0)."""

    reference: Language
    words: Tensor
    reward: Tensor
    log_reference: Tensor

    def exact(self, model: Language) -> tuple[float, float]:
        """E[R] and KL(pi || pi_0), averaged over the prompts, by enumeration."""
        with torch.no_grad():
            log_p = log_prob_of_all(model).double()
        p = log_p.exp() / PROMPTS
        kl = (p * (log_p - self.log_reference)).sum()
        return float((p * self.reward).sum()), float(kl)

    def best(self, beta: float) -> tuple[float, float, float]:
        """E[R], KL and J = beta log Z of the exact optimum."""
        shape = (PROMPTS, -1)
        reference, reward = self.log_reference.view(shape), self.reward.view(shape)
        star, log_z = rlhf.optimum(reference, reward, beta)
        p = star.exp()
        expected = float((p * reward).sum(-1).mean())
        kl = float((p * (star - reference)).sum(-1).mean())
        return expected, kl, beta * float(log_z.mean())


def make_task(seed: int, steps: int) -> Task:
    """Pretrain a reference on sentences of a random source and freeze the whitening."""
    torch.manual_seed(seed)
    source, reference = Language(), Language()
    with torch.no_grad():
        source.out.weight.mul_(6)
    prompt, words = sentences()
    with torch.no_grad():
        weight = log_prob_of_all(source).exp()
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    for _ in range(steps):
        rows = torch.multinomial(weight, 256, replacement=True)
        optimizer.zero_grad()
        (-log_prob(reference, prompt[rows], words[rows]).sum(-1).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        log_reference = log_prob_of_all(reference).double()
    safety, helpfulness = reward_models(words)
    is_safety = torch.isin(prompt, torch.tensor(SAFETY_PROMPTS))
    score = rlhf.logit(rlhf.gate(safety, helpfulness, is_safety))
    calibration = torch.multinomial(log_reference.exp(), 4096, replacement=True)
    reward = rlhf.whiten(score, rlhf.moments(score[calibration]))
    return Task(reference, words, reward, log_reference)


def sample(model: Language, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences of the policy: the prompts, the words, and the logits that drew them."""
    prompt = torch.arange(n) % PROMPTS
    state, last, words, found = model.start.expand(n, -1), prompt + WORDS, [], []
    for _ in range(LENGTH):
        logits, state = model.step(last, state)
        last = torch.multinomial(logits.detach().softmax(-1), 1).squeeze(-1)
        words.append(last)
        found.append(logits)
    return prompt, torch.stack(words, 1), torch.stack(found, 1)


def rows_of(words: Tensor, prompt: Tensor) -> Tensor:
    """Where sentences stand in the enumeration: their choices are its digits."""
    followers = ALLOWED.nonzero()[:, 1].view(WORDS, FOLLOWERS)
    row, last = prompt.clone(), prompt
    for t in range(LENGTH):
        choice = (followers[last] == words[:, t : t + 1]).long().argmax(-1)
        row = row * FOLLOWERS + choice
        last = words[:, t]
    return row


def fine_tune(
    task: Task, controller: rlhf.Controller, way: tuple[str, str, str], steps: int, every: int
) -> tuple[Language, list[tuple[int, float, float, float]]]:
    """Policy gradient with a leave-one-out baseline; the record is exact."""
    use, estimator, per = way
    model = copy.deepcopy(task.reference)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    record = [(0, *task.exact(model), controller.beta)]
    for step in range(1, steps + 1):
        prompt, words, logits = sample(model, 256)
        reward = task.reward[rows_of(words, prompt)].float()
        with torch.no_grad():
            other = task.reference.logits(prompt, words)
        pick = words.unsqueeze(-1)
        log_p = logits.log_softmax(-1).gather(-1, pick).squeeze(-1)
        log_q = other.log_softmax(-1).gather(-1, pick).squeeze(-1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rlhf.PenaltyWarning)  # to see where they lead
            if estimator == "exact":
                loss_penalty = rlhf.sequence_kl(rlhf.exact_kl(logits, other), log_p)
            else:
                loss_penalty = rlhf.penalty(log_p, log_q, use=use, estimator=estimator, per=per)  # type: ignore[arg-type]
        if use == "reward":
            reward = rlhf.penalised_reward(reward, loss_penalty, controller.beta)
        baseline = (reward.sum() - reward) / (len(reward) - 1)
        loss = -((reward - baseline) * log_p.sum(-1)).mean()
        if use == "loss":
            loss = loss + controller.beta * loss_penalty.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not isinstance(controller, rlhf.FixedBeta):  # which does not need the KL
            controller.update(rlhf.exact_kl(logits.detach(), other))
        if step % every == 0 or step == steps:
            record.append((step, *task.exact(model), controller.beta))
    return model, record


def name(way: tuple[str, str, str]) -> str:
    """How a way to penalise is called."""
    return f"{way[1]} in the {way[0]}"


#: Each line is there when it is known, also where standard output is no terminal.
say = partial(print, flush=True)


def run(args: argparse.Namespace) -> int:
    """Train, print, draw."""
    steps, every = (20, 10) if args.smoke else (150, 15)
    beta, betas = 0.3, (0.15, 0.3, 0.6, 1.2)
    say("Training the reference on sentences of a random source ...")
    task = make_task(args.seed, 60 if args.smoke else 250)
    size = sum(p.numel() for p in task.reference.parameters())
    say(f"A GRU of {size:,} parameters; {len(task.words):,} sentences, all enumerated.")
    say(f"\nWhere each penalty leads, beta = {beta}, after {steps} steps (exact numbers)")
    say("E[R]: expected reward. KL: KL(policy || reference), nats for each sentence.")
    say("J = E[R] - beta KL is maximised; pi* = pi_0 exp(R / beta) / Z has the largest J.")
    say(f"{'penalty':<22}{'E[R]':>8}{'KL':>8}{'J':>8}")
    runs = {}
    for way in WAYS:
        runs[name(way)] = fine_tune(task, rlhf.FixedBeta(beta), way, steps, every)[1]
        _, reward, kl, _ = runs[name(way)][-1]
        say(f"{name(way):<22}{reward:8.3f}{kl:8.3f}{reward - beta * kl:8.3f}")
    best = {b: task.best(b) for b in betas}
    say(f"{'optimum pi*':<22}{best[beta][0]:8.3f}{best[beta][1]:8.3f}{best[beta][2]:8.3f}")
    controller = rlhf.AdaptiveBeta(beta, target=TARGET, horizon=2560)
    _, adaptive = fine_tune(task, controller, WAYS[0], steps, every)
    say(f"\nAdaptive beta, target {TARGET:g} nat per sentence: KL {adaptive[-1][2]:.3f}, "
        f"beta {adaptive[-1][3]:.3f}")  # fmt: skip
    say("\nOther weights of the penalty; beta log Z is J of pi*, which no policy exceeds")
    say(f"{'beta':>6}{'E[R]':>8}{'KL':>8}{'J':>8}{'beta log Z':>12}")
    ends = {}
    for b in betas:
        record = runs[name(WAYS[0])]
        if b != beta:
            record = fine_tune(task, rlhf.FixedBeta(b), WAYS[0], steps, steps)[1]
        _, reward, kl, _ = ends[b] = record[-1]
        say(f"{b:6.2f}{reward:8.3f}{kl:8.3f}{reward - b * kl:8.3f}{best[b][2]:12.3f}")
    for path in draw(args.out, task, runs, adaptive, ends, best, beta):
        say(f"Written: {path}")
    return 0


def draw(
    out: Path, task: Task, runs: dict[str, Any], adaptive: Any, ends: Any, best: Any, beta: float
) -> Iterator[Path]:
    """The three pictures, one after another; dotted lines are the exact optimum."""
    for picture, drawn in zip(
        PICTURES,
        (
            draw_training(runs[name(WAYS[0])], adaptive, best[beta], beta),
            draw_frontier(task, ends),
            draw_estimators(runs, best[beta], beta),
        ),
        strict=True,
    ):
        drawn.savefig(out / picture)
        yield out / picture


def draw_training(fixed: Any, adaptive: Any, best: tuple[float, float, float], beta: float) -> Any:
    """Reward, KL and beta over the steps, with a fixed beta and with one that aims at a KL."""
    from matplotlib.figure import Figure

    from pyro_kl.plot import style

    figure = Figure((8, 7.5), dpi=150, layout="constrained")
    reward, kl, weight = figure.subplots(3, 1, sharex=True)
    runs = ((f"beta = {beta:g}", fixed), (f"adaptive beta, target {TARGET:g} nat", adaptive))
    for axes, column in ((reward, 1), (kl, 2), (weight, 3)):
        for i, (label, record) in enumerate(runs):
            how = style.series(i)
            axes.plot([r[0] for r in record], [r[column] for r in record], **how.line,
                      marker=how.marker, label=label)  # fmt: skip
    reward.axhline(best[0], **style.TARGET.line, label=f"optimal policy, beta = {beta:g}")
    kl.axhline(best[1], **style.TARGET.line, label=f"optimal policy, beta = {beta:g}")
    kl.axhline(TARGET, color=style.GREY, lw=1.2, label="target of the adaptive beta")
    weight.set_xlabel("step")
    style.integer_ticks(weight)
    for axes, label, title in (
        (reward, "E[R], whitened", "Expected reward"),
        (kl, "KL, nats per sentence", "KL(policy || reference)"),
        (weight, "beta", "Weight of the KL"),
    ):
        axes.set_ylabel(label)
        style.legend(axes)
        style.finish(axes, title)
    return figure


def draw_frontier(task: Task, ends: dict[float, Any]) -> Any:
    """Where training with each beta ended, and the optimal policies."""
    from matplotlib.figure import Figure

    from pyro_kl import plot

    figure = Figure((7, 4.8), dpi=150, layout="constrained")
    curve = [task.best(float(b)) for b in torch.logspace(-1.2, 1.2, 40)]
    axes = plot.reward_against_kl(
        [kl for _, _, kl, _ in ends.values()],
        [reward for _, reward, _, _ in ends.values()],
        labels=[f"trained, beta = {b:g}" for b in ends],
        optimum=([c[1] for c in curve], [c[0] for c in curve]),
        ax=figure.subplots(),
    )
    axes.set(xlabel="KL(policy || reference), nats per sentence", ylabel="E[R], whitened")
    return figure


def draw_estimators(runs: dict[str, Any], best: tuple[float, float, float], beta: float) -> Any:
    """The objective over the steps, for each way to penalise."""
    from matplotlib.figure import Figure

    from pyro_kl.plot import style

    figure = Figure((8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for i, (label, record) in enumerate(runs.items()):
        how = style.series(i)
        axes.plot([r[0] for r in record], [r[1] - beta * r[2] for r in record], **how.line,
                  marker=how.marker, label=label)  # fmt: skip
    axes.axhline(best[2], **style.TARGET.line, label="optimal policy: beta log Z")
    style.integer_ticks(axes)
    axes.set(xlabel="step", ylabel="J, in units of the whitened reward")
    style.legend(axes)
    style.finish(axes, f"J = E[R] - beta KL(policy || reference), beta = {beta:g}, by estimator")
    return figure


def run_model(path: Path, seed: int) -> int:
    """The penalty on a causal LM's logits: the policy is the model at temperature 0.7."""
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        print('error: --model needs transformers: pip install "pyro-kl[llm]"', file=sys.stderr)
        return BAD_INPUT
    if not path.is_dir():
        print(f"error: --model {path}: no such folder; nothing is downloaded", file=sys.stderr)
        return BAD_INPUT
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()
    start = getattr(model.config, "bos_token_id", None) or 0
    tokens = torch.full((64, 1), start)
    with torch.no_grad():
        for _ in range(LENGTH):
            logits = model(tokens).logits[:, -1].float() / 0.7
            tokens = torch.cat([tokens, torch.multinomial(logits.softmax(-1), 1)], 1)
        other = model(tokens).logits[:, :-1].float()
        mine, pick = other / 0.7, tokens[:, 1:].unsqueeze(-1)
        log_p, log_q = (x.log_softmax(-1).gather(-1, pick).squeeze(-1) for x in (mine, other))
        exact = rlhf.exact_kl(mine, other).sum(-1)
    print(f"Exact KL of {LENGTH} tokens at temperature 0.7 against 1, over {mine.shape[-1]:,} "
          f"tokens: {float(exact.mean()):.4f} nats")  # fmt: skip
    for estimator in ("k1", "k3"):
        print(f"{estimator}: {rlhf.sampled_kl(log_p, log_q, estimator)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.kl_penalised_policy")
    add = parser.add_argument
    add("--seed", type=int, default=0, help="seed of everything (0)")
    add("--out", type=Path, default=Path("out/kl_penalised_policy"), help="output folder")
    add("--smoke", action="store_true", help="a few seconds: few steps")
    add("--model", type=Path, metavar="PATH", help="folder of a Hugging Face causal LM")
    args = parser.parse_args(argv)
    if args.model is not None:
        return run_model(args.model, args.seed)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"error: --out {args.out}: cannot be made ({error.strerror})", file=sys.stderr)
        return BAD_INPUT
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(args)
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
