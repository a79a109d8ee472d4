"""NATS-Bench's size space (Dong et al. 2021): 32,768 choices of the channels around one cell."""
