"""PyTorch's side: weights both ways, its network, and the comparison with ours."""
