"""The pocket reasoner: its architecture and how it is trained."""
