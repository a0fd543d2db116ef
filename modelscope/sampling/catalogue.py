"""Every sampler, by name. Importing a family registers its samplers, in this order."""

from . import ddim, dpm_solver, euler, lcm, unipc
from .sampler import Sampler, get_sampler, sampler_names

__all__ = ["Sampler", "ddim", "dpm_solver", "euler", "get_sampler", "lcm", "sampler_names", "unipc"]
