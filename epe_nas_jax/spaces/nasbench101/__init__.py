"""NAS-Bench-101 (Ying et al. 2019): cells of up to seven vertices and nine edges."""
