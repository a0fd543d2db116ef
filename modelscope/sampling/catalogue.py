"""All samplers by name. Importing a module registers its samplers, in the order of the imports."""

from . import ddim, dpm_solver, euler, lcm, unipc
from .sampler import Sampler, get_sampler, sampler_names

__all__ = ["Sampler", "ddim", "dpm_solver", "euler", "get_sampler", "lcm", "sampler_names", "unipc"]
