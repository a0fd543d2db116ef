"""Features of the deep levels of the UNet, kept from step to step."""

from collections.abc import Hashable, Sequence

from torch import Tensor


class DeepFeatureCache:
    """What the levels below the first returned, for steps that do not run them (Ma et al., 2023: DeepCache).

    Steps that follow each other differ little there.
    """

    def __init__(self) -> None:
        self._features: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable) -> Tensor | None:
        """Return what was put under the key, [(b f), c, h, w]."""
        return self._features.get(key)

    def put(self, key: Hashable, features: Tensor) -> None:
        """Keep features [(b f), c, h, w] under a key."""
        self._features[key] = features

    def has(self, keys: Sequence[Hashable]) -> bool:
        """Return whether there is something under each of the keys."""
        return all(key in self._features for key in keys)

    def clear(self) -> None:
        """Drop everything, so that the next step runs all levels."""
        self._features.clear()
