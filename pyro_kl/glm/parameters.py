"""Parameters of an estimator, by the conventions of scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from ..messages import see

Estimator = TypeVar("Estimator", bound="Parameters")


class Parameters:
    """An estimator whose parameters are attributes of the same name."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def set_params(self: Estimator, **parameters: Any) -> Estimator:
        """Set parameters by name."""
        known = self.get_params()
        for name, value in parameters.items():
            if name not in known:
                raise ValueError(
                    f"{name!r} is not a parameter; there are {', '.join(known)}"
                    + see("no-such-site")
                )
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` has been called."""
        return hasattr(self, "loc_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's pipelines and searches ask an estimator."""
        from sklearn import utils

        is_classifier = hasattr(self, "predict_proba")
        return utils.Tags(
            estimator_type="classifier" if is_classifier else "regressor",
            target_tags=utils.TargetTags(required=True),
            classifier_tags=utils.ClassifierTags(multi_class=False) if is_classifier else None,
            regressor_tags=None if is_classifier else utils.RegressorTags(),
            input_tags=utils.InputTags(sparse=True),
        )

    def __repr__(self) -> str:
        """The parameters that are not the defaults."""
        defaults = inspect.signature(type(self).__init__).parameters
        shown = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name].default)  # arrays have no truth value
        ]
        return f"{type(self).__name__}({', '.join(shown)})"
