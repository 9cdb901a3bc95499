"""A product of a user's own: from cut-outs, empty fixtures and rules to a reasoner for it."""
