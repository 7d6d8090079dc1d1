"""Pages about sites and regions: one HTML file each, which needs nothing else."""
