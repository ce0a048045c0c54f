"""The built-in methods, which importing this module registers, and the parts of a method."""

from methods.alpha_flow import AlphaFlow
from methods.base import Batch, Denoiser, Inverts, Method, Progress, Teaches
from methods.conversions import from_eps, from_flow, from_v
from methods.ct import CT
from methods.denoiser import DenoiserMethod
from methods.diffusers_models import DiffusersModel
from methods.dit import DiT, SiT
from methods.edm import EDM
from methods.edm2 import EDM2
from methods.gft import GFT
from methods.guidance import Guidance
from methods.guided_cd import GuidedCD
from methods.igct import IGCT
from methods.imm import IMM
from methods.meanflow import MeanFlow
from methods.mg import MG
from methods.mg_ct import MGCT
from methods.oracle import Oracle
from methods.own_model import model
from methods.registry import METHODS, register
from methods.rng import BatchRNG, SampleRNG
from methods.scd import SCD
from methods.sct import SCT
from methods.settings import Preset, Settings, TrainSettings
from methods.spec import DataSpec, Mixture
from methods.tcm import TCM

__all__ = [
    "CT",
    "EDM",
    "EDM2",
    "GFT",
    "IGCT",
    "IMM",
    "METHODS",
    "MG",
    "MGCT",
    "SCD",
    "SCT",
    "TCM",
    "AlphaFlow",
    "Batch",
    "BatchRNG",
    "DataSpec",
    "Denoiser",
    "DenoiserMethod",
    "DiT",
    "DiffusersModel",
    "Guidance",
    "GuidedCD",
    "Inverts",
    "MeanFlow",
    "Method",
    "Mixture",
    "Oracle",
    "Preset",
    "Progress",
    "SampleRNG",
    "Settings",
    "SiT",
    "Teaches",
    "TrainSettings",
    "from_eps",
    "from_flow",
    "from_v",
    "model",
    "register",
]
