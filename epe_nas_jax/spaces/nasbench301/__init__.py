"""NAS-Bench-301 (Zela et al. 2022): DARTS cells in the network of that benchmark."""
