"""Guidance rules behind one interface: importing this package registers the built-in ones."""

from methods.rules.adaptive import AdaptiveGuidance
from methods.rules.apg import APG
from methods.rules.autoguidance import Autoguidance
from methods.rules.base import Between, Call, Networks, NoKnobs, OneOf, Point, Rule, spread
from methods.rules.beta_cfg import BetaCFG
from methods.rules.c2fg import C2FG
from methods.rules.cads import CADS
from methods.rules.cfg import CFG
from methods.rules.cfg_mp import CFGMP
from methods.rules.cfg_zero import CFGZero
from methods.rules.cfgpp import CFGPlusPlus
from methods.rules.compose import Composite
from methods.rules.dynamic_threshold import DynamicThreshold
from methods.rules.fbg import FeedbackGuidance
from methods.rules.fdg import FDG
from methods.rules.fkc import FeynmanKac
from methods.rules.foresight import Foresight
from methods.rules.gibbs import GibbsLike
from methods.rules.higs import HiGS
from methods.rules.icg import ICG
from methods.rules.interval import Interval
from methods.rules.mambo_g import MamboG
from methods.rules.momentum import MomentumGuidance
from methods.rules.monotone import Monotone
from methods.rules.pag import PAG
from methods.rules.rect_cfgpp import RectifiedCFGPlusPlus
from methods.rules.reg import REG
from methods.rules.registry import RULES, make_rule, register_rule
from methods.rules.rescale import Rescale
from methods.rules.s2 import S2
from methods.rules.seg import SEG
from methods.rules.self_guidance import SelfGuidance
from methods.rules.skip_layer import SkipLayer
from methods.rules.sliding_window import SlidingWindow
from methods.rules.smc_cfg import SMCCFG
from methods.rules.tcfg import TCFG
from methods.rules.tdg import TDG
from methods.rules.tsg import TSG
from methods.rules.zigzag import Zigzag

__all__ = [
    "APG",
    "C2FG",
    "CADS",
    "CFG",
    "CFGMP",
    "FDG",
    "ICG",
    "PAG",
    "REG",
    "RULES",
    "S2",
    "SEG",
    "SMCCFG",
    "TCFG",
    "TDG",
    "TSG",
    "AdaptiveGuidance",
    "Autoguidance",
    "BetaCFG",
    "Between",
    "CFGPlusPlus",
    "CFGZero",
    "Call",
    "Composite",
    "DynamicThreshold",
    "FeedbackGuidance",
    "FeynmanKac",
    "Foresight",
    "GibbsLike",
    "HiGS",
    "Interval",
    "MamboG",
    "MomentumGuidance",
    "Monotone",
    "Networks",
    "NoKnobs",
    "OneOf",
    "Point",
    "RectifiedCFGPlusPlus",
    "Rescale",
    "Rule",
    "SelfGuidance",
    "SkipLayer",
    "SlidingWindow",
    "Zigzag",
    "make_rule",
    "register_rule",
    "spread",
]
