"""The HTTP service: REST for machines, pages for people, over one store and one reasoner."""
