"""Programs in which people already work, one module each; each needs the program of its name, seran none."""
