"""Motion backends: what moved between one frame and the next."""
