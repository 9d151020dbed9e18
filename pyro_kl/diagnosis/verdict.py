"""What to trust of a fit, in plain words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .doubts import advice

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

#: Differences that are small beside the guide's own sd.
_SMALL = 0.1
#: What weights cannot show.
_UNSEEN = "A mode of the posterior that it never draws is not seen."


def verdict(found: Diagnosis) -> list[str]:
    """The last lines under the table."""
    if found.kl_posterior.method == "infinite":
        return [
            "The guide draws where the posterior has no density. Give the sites of the guide the "
            "supports of the model's sites; an autoguide does."
        ]
    if not found.known:
        return [advice(found.kl_posterior.reason)]
    shift, ratio = _worst(found)
    correlation = _lost_correlation(found)
    unknown = [row for row in found.to_dicts() if math.isnan(row["mean"])]
    columns = "posterior's columns" if not unknown else "posterior's columns that are known"
    if found.mean_bound <= _SMALL:
        lines = [
            "Trust the guide as far as its draws reach: no posterior mean is further from the "
            f"guide's than {found.mean_bound:.2g} of the guide's sds. {_UNSEEN}"
        ]
    elif _all_known(found) and shift[0] <= _SMALL >= abs(ratio[0] - 1) and not correlation:
        lines = [
            "Trust the guide as far as its draws reach: by importance weights no posterior mean "
            f"is further from the guide's than {shift[0]:.2g} of the guide's sds, and no sd "
            f"differs by more than {math.ceil(100 * abs(ratio[0] - 1))} %. {_UNSEEN}"
        ]
        if found.khat >= found.khat_threshold:
            lines.append("Its far tails are too light: take no rare events from it.")
    elif found.khat < found.khat_threshold:
        lines = [
            f"The evidence and the KL can be trusted. Take the {columns}, not the guide's, where "
            "they differ."
        ]
    else:
        lines = [
            "The guide's tails are too light: do not trust its sds. The evidence, the KL and the "
            f"{columns} can be trusted, since draws of a wider guide are in them."
        ]
    if shift[0] > _SMALL:
        lines.append(
            f"The mean that differs most: {shift[1]}, by {shift[0]:.2g} of the guide's sds."
        )
    if abs(ratio[0] - 1) > _SMALL:
        lines.append(
            f"The sd that differs most: {ratio[1]}, {ratio[0]:.2f} times the guide's, which is "
            + ("too small." if ratio[0] > 1 else "too large.")
        )
    if correlation:
        lines.append(correlation)
    return lines


def _all_known(found: Diagnosis) -> bool:
    """Whether each element has a mean and an sd by importance weights."""
    return not any(bool(site.mean.isnan().any()) for site in found.sites)


def _lost_correlation(found: Diagnosis) -> str:
    """The correlation within a site that differs most between guide and posterior."""
    worst, line = 2 * _SMALL, ""
    for site in found.sites:
        if site.covariances is None:
            continue
        guide, posterior = (
            x / x.diagonal().outer(x.diagonal()).sqrt()
            for x in (site.covariances.guide, site.covariances.posterior)
        )
        difference = (posterior - guide).abs().nan_to_num().tril(-1)
        place = int(difference.argmax())
        if float(difference.max()) > worst:
            worst = float(difference.max())
            rows = site.to_dicts()
            names = [element(rows[i]) for i in divmod(place, len(rows))]
            line = (
                f"The correlation that differs most: {names[1]} and {names[0]}, "
                f"{float(posterior.reshape(-1)[place]):.2f} in the posterior and "
                f"{float(guide.reshape(-1)[place]):.2f} in the guide."
            )
    return line


def _worst(found: Diagnosis) -> tuple[tuple[float, str], tuple[float, str]]:
    """The largest shift of a mean in sds, and the ratio of sds furthest from 1, with names."""
    shift, ratio = (0.0, ""), (1.0, "")
    for row in found.to_dicts():
        sd = row["guide_sd"]
        if not sd > 0 or math.isnan(row["mean"]):
            continue
        name = element(row)
        shift = max(shift, (abs(row["mean"] - row["guide_mean"]) / sd, name))
        own = row["sd"] / sd
        if own > 0 and abs(math.log(own)) > abs(math.log(ratio[0])):
            ratio = (own, name)
    return shift, ratio


def element(row: dict[str, Any]) -> str:
    """The name of an element of a site."""
    index = row["index"]
    return row["site"] + (f"[{','.join(map(str, index))}]" if index else "")
