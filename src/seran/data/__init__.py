"""Training data: raw scans, public sets, prepared pairs of slices, and patches drawn from them."""
