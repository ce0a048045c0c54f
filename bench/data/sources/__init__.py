"""What people have on disk: the forms that are recognised, the most specific first."""

from bench.data.sources.base import Listing, Source
from bench.data.sources.find import SOURCES, find_source

__all__ = ["SOURCES", "Listing", "Source", "find_source"]
