"""What VGG16 looks like, and what is read of it: all that must be known before there are weights. No Keras here."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONVOLUTIONS: Final = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}  # per block of VGG16, configuration D
CHANNELS: Final = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}


@dataclass(frozen=True)
class ModelShape:
    """What must be known to build the network before its weights are loaded."""

    classes: int
    blocks: tuple[int, ...] = (2, 3, 4, 5)
    ranks: tuple[int, ...] = (0, 128, 88, 56)  # per block: directions whose covariances are read
    embedding_size: int = 42
    axes: int = 16  # the directions in which the ood_score tells where a picture lies
    centres: int = 256  # and the places among the training pictures that it knows
    outside: bool = False  # whether the ood_score also tells cultures that are none of the classes

    def rank(self, block: int) -> int:
        """Directions of this block whose covariances are read."""
        return self.ranks[self.blocks.index(block)]

    def features_of(self, block: int) -> int:
        """Numbers that the head reads of a block."""
        return 2 * CHANNELS[block] + self.rank(block) * (self.rank(block) + 1) // 2

    @property
    def features(self) -> int:
        """Numbers that the head reads."""
        return sum(self.features_of(block) for block in self.blocks)

    def features_below(self, cut: int) -> int:
        """Numbers that the head reads of the blocks before block `cut`."""
        return sum(self.features_of(block) for block in self.blocks if block < cut)

    def slices(self) -> dict[int, slice]:
        """Where each block's numbers stand among all features."""
        ends = np.cumsum([self.features_of(block) for block in self.blocks]).tolist()
        return {n: slice(end - self.features_of(n), end) for n, end in zip(self.blocks, ends, strict=True)}

    def embedded(self) -> slice:
        """The features that the embedding reads: the means of the highest block."""
        start = self.slices()[self.blocks[-1]].start
        return slice(start, start + CHANNELS[self.blocks[-1]])

    def lowest(self) -> slice:
        """The features that the ood_score reads: means and deviations of the lowest block."""
        return slice(0, 2 * CHANNELS[self.blocks[0]])

    def standardised(self) -> NDArray[np.int32]:
        """Positions of the features that come in units of their own, all but the covariances."""
        slices = self.slices()
        return np.concatenate([np.arange(2 * CHANNELS[n]) + slices[n].start for n in self.blocks]).astype(np.int32)
