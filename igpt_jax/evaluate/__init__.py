"""What a model learned: held-out likelihood, features of every layer, and linear probes on them."""
