"""NATS-Bench's size space (Dong et al. 2021): 32,768 choices of channels of one cell's network."""
