"""Makes the reasoner: data, trainers, evaluation."""
