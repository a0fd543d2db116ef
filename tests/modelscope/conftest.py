"""Before any test here imports a rival: diffusers, transformers and modelscope need an importable torchvision."""

from sd_t2v.benchmarks.torchvision_import import import_torchvision

import_torchvision()
