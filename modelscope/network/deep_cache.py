"""Features of the deep levels of the UNet, kept from step to step."""

from collections.abc import Hashable, Sequence

from torch import Tensor


class DeepFeatureCache:
    """A cache for the output of the levels below the first, for steps that skip them (Ma et al., 2023: DeepCache).

    This output changes little from one step to the next.
    """

    def __init__(self) -> None:
        self._features: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable) -> Tensor | None:
        """Return the features under a key, [(b f), c, h, w], or None."""
        return self._features.get(key)

    def put(self, key: Hashable, features: Tensor) -> None:
        """Keep features [(b f), c, h, w] under a key."""
        self._features[key] = features

    def has(self, keys: Sequence[Hashable]) -> bool:
        """Return whether there are features under each of the keys."""
        return all(key in self._features for key in keys)

    def clear(self) -> None:
        """Drop everything, so that the next step runs all levels."""
        self._features.clear()
