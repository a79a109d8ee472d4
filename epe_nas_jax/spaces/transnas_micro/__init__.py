"""TransNAS-Bench-101, micro level (Duan et al. 2021): 4,096 cells of four nodes and six edges."""
