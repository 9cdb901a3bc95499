"""Makes the reasoner: data, trainers, evaluation."""

import os

# The trainers' libraries would report their use over the network; a line PC calls nobody.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
