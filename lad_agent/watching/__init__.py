"""The hot folder: pictures come in, are inspected once, and move to where they belong.

`folder` knows files alone: which are whole, which recipe is theirs, where they go. `loop` runs
them through the workflow.
"""

from lad_agent.watching.folder import Arrival, HotFolder
from lad_agent.watching.loop import Moved, run, until_told

__all__ = ["Arrival", "HotFolder", "Moved", "run", "until_told"]
