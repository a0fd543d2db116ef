"""Before any test here imports a rival: diffusers, transformers and modelscope need an importable torchvision."""

from sd_t2v.modelscope.network.open_clip_import import open_clip_module

open_clip_module("transformer")
