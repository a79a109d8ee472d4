"""NAS-Bench-201 (Dong & Yang 2020): 15,625 cells of four nodes and six edges."""
