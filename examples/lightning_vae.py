"""A variational autoencoder of handwritten digits as a module of Lightning.

The loss of a training step is `TraceKL_ELBO.differentiable_loss`, whose report says the KL of each
site: Lightning logs them, here to a CSV. Run ``python -m examples.lightning_vae``; it takes about
ten seconds and needs `pip install lightning scikit-learn`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import lightning
import pyro
import pyro.distributions as dist
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pyro_kl

PIXELS, HIDDEN, LATENT = 64, 128, 8


class VAE(lightning.LightningModule):
    """A VAE whose parameters belong to Lightning.

    Model and guide use the networks without `pyro.module`: their parameters are the module's own,
    and Lightning moves, steps and saves them.

    Args:
        num_images: all images, of which a batch is a part.
        warmup: the weight of the KL grows to 1 over that many steps.
    """

    def __init__(self, num_images: int, warmup: int = 100) -> None:
        super().__init__()
        self.num_images = num_images
        self.encoder = nn.Sequential(
            nn.Linear(PIXELS, HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, 2 * LATENT)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, PIXELS)
        )
        self.elbo = pyro_kl.TraceKL_ELBO(beta=pyro_kl.LinearWarmup(warmup))

    def model(self, images: Tensor) -> None:
        """Images from latents."""
        with pyro.plate("images", self.num_images, subsample=images):
            prior = dist.Normal(images.new_zeros(LATENT), 1.0).to_event(1)
            z = pyro.sample("z", prior.expand([len(images)]))
            pixels = dist.Bernoulli(logits=self.decoder(z), validate_args=False)
            pyro.sample("pixels", pixels.to_event(1), obs=images)

    def guide(self, images: Tensor) -> None:
        """Latents from images."""
        with pyro.plate("images", self.num_images, subsample=images):
            loc, log_scale = self.encoder(images).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss of a batch for each image; each term of it is logged."""
        loss = self.elbo.differentiable_loss(self.model, self.guide, batch[0])
        report = self.elbo.report
        terms = {"loss": loss.detach(), "elbo": report.elbo}
        terms |= {f"kl/{site}": kl for site, kl in report.kls.items()}
        self.log_dict({name: term / self.num_images for name, term in terms.items()})
        return loss / self.num_images

    def configure_optimizers(self) -> Any:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def fit(epochs: int, folder: str | Path) -> list[dict[str, str]]:
    """Fit the digits; the rows of the log."""
    lightning.seed_everything(0, verbose=False)
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 16.0
    batches = DataLoader(TensorDataset(images), batch_size=128, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        log_every_n_steps=5,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(VAE(len(images)), batches)
    with Path(folder, "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Fit, and print some rows of the log."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--folder", default="out/lightning_vae")
    options = parser.parse_args()
    rows = fit(options.epochs, options.folder)
    print("nats for each image")
    print(f"{'step':>6}{'loss':>10}{'ELBO':>10}{'KL of z':>10}")
    for row in rows[:: max(1, len(rows) // 10)]:
        loss, elbo, kl = (float(row[name]) for name in ("loss", "elbo", "kl/z"))
        print(f"{int(row['step']) + 1:>6}{loss:>10.2f}{elbo:>10.2f}{kl:>10.2f}")


if __name__ == "__main__":
    main()
