"""What a whole archive would take, from a sample of it that goes the way that `annotate` goes."""
